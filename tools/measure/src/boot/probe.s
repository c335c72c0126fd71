# Where measurements end: the probe kernel in its two forms, the base line image, and the first program in user space. `as` and
# `objcopy` make a file of each section. The tool defines KERNEL, the kernel's size in bytes, the ports, and the number of each
# end; the rest of a kernel's file is zeros.

# The port of fw_cfg's selector on x86 (QEMU, docs/specs/fw_cfg.rst).
.set SELECTOR, 0x510

# Marks the end by the selection of an item that no host has.
.macro mark end
    mov $SELECTOR, %dx
    mov $(MARKER | \end), %ax
    out %ax, %dx
.endm

# Ends QEMU. A host without an exit device stays here.
.macro leave_qemu end
    mov $EXIT, %dx
    mov $\end, %al
    out %al, %dx
.endm

# Marks the end, writes the time stamp counter's value at its first instruction, and ends QEMU. With QEMU's option
# `-icount shift=0` that value is the number of instructions since reset. Uses registers and ports only, so that it runs at a
# kernel's first instruction, before there is a stack.
.macro finish end
    rdtsc
    mov %eax, %ebx
    mov %edx, %ecx
    mark \end
    mov $CLOCK, %dx
    mov %ebx, %eax
    out %eax, %dx
    mov %ecx, %eax
    out %eax, %dx
    leave_qemu \end
    cli
1:  hlt
    jmp 1b
.endm

# A bzImage with every way in: the 16-bit setup code, the 32-bit and the 64-bit entry point (Linux,
# Documentation/arch/x86/boot.rst), and the EFI program that the file is as well (Microsoft, "PE Format").
.section bzimage, "a"
.set SETUP, 5 * 512                     # one sector, and four of setup code
.set PROTECTED, KERNEL - SETUP
.set BASE_EFI, 0x1000                   # the protected-mode part in memory, a page above the headers
    .ascii "MZ"
    .org 0x3c
    .long 0x40                          # the PE header
    .ascii "PE\0\0"
    .short 0x8664, 1                    # x86-64, sections
    .org 0x54
    .short 160, 0x206                   # size of what follows; executable, may be moved
    .short 0x20b                        # PE32+
    .org 0x5c
    .long PROTECTED                     # size of code
    .org 0x68
    .long BASE_EFI + 0x280, BASE_EFI    # entry point, base of code
    .org 0x78
    .long 0x1000, 512                   # alignment of sections in memory and in the file
    .org 0x90
    .long (BASE_EFI + PROTECTED + 0xfff) & ~0xfff, SETUP # size of image, of headers
    .org 0x9c
    .short 10                           # EFI application
    .org 0xc4
    .long 6                             # directories, all empty
    .org 0xf8
    .ascii ".text"
    .org 0x100
    .long PROTECTED, BASE_EFI, PROTECTED, SETUP # size and address in memory, size and place in the file
    .org 0x11c
    .long 0x60000020                    # code, executable, readable
    .org 0x1f1
    .byte 4                             # setup_sects
    .org 0x1f4
    .long PROTECTED / 16                # syssize
    .org 0x1fe
    .short 0xaa55                       # boot_flag
    .byte 0xeb, 0x26c - 0x202           # jump over the header
    .ascii "HdrS"
    .short 0x20f                        # version 2.15
    .org 0x211
    .byte 1                             # loadflags: LOADED_HIGH
    .org 0x214
    .long 0x100000                      # code32_start
    .org 0x22c
    .long 0x7fffffff, 0x200000          # initrd_addr_max, kernel_alignment
    .byte 1, 21                         # relocatable_kernel, min_alignment
    .short 3                            # xloadflags: XLF_KERNEL_64, XLF_CAN_BE_LOADED_ABOVE_4G
    .long 2047                          # cmdline_size
    .org 0x258
    .quad 0x1000000                     # pref_address
    .long (PROTECTED + 0xfff) & ~0xfff  # init_size
    .org 0x26c
    .code16
    finish Real16
    .org SETUP
    .code32
    finish Protected32
    .org SETUP + 0x200
    .code64
    finish Long64
    .org SETUP + 0x280
    finish Efi

# A unified kernel image: an EFI program with a command line, a kernel and an initrd in sections, which have no use here. Each section
# has another offset in memory than in the file.
.section unified, "a"
.set PART, (KERNEL - 0x800) / 1024 * 512 # half of the rest of the file
.set LINUX, 0x3000
.set INITRD, (LINUX + PART + 0xfff) & ~0xfff
.set REST, KERNEL - 0x800 - PART
    .ascii "MZ"
    .org 0x3c
    .long 0x40                          # the PE header
    .ascii "PE\0\0"
    .short 0x8664, 4                    # x86-64, sections
    .org 0x54
    .short 160, 0x206                   # size of what follows; executable, may be moved
    .short 0x20b                        # PE32+
    .org 0x5c
    .long 512                           # size of code
    .org 0x68
    .long 0x1000, 0x1000                # entry point, base of code
    .org 0x78
    .long 0x1000, 512                   # alignment of sections in memory and in the file
    .org 0x90
    .long (INITRD + REST + 0xfff) & ~0xfff, 0x400 # size of image, of headers
    .org 0x9c
    .short 10                           # EFI application
    .org 0xc4
    .long 6                             # directories, all empty
    .org 0xf8
.macro part name, size, at, offset, flags
1:  .ascii "\name"
    .org 1b + 8
    .long \size, \at, \size, \offset    # size and address in memory, size and place in the file
    .org 1b + 36
    .long \flags
.endm
    part ".text", 512, 0x1000, 0x400, 0x60000020
    part ".cmdline", 512, 0x2000, 0x600, 0x40000040
    part ".linux", PART, LINUX, 0x800, 0x40000040
    part ".initrd", REST, INITRD, 0x800 + PART, 0x40000040
    .org 0x400
    .code64
    finish Efi

# The first program in user space, an ELF file of 64 bits: takes the right to use ports, marks its end, and ends QEMU.
.section user, "a"
.set BASE_USER, 0x400000
user_start:
    .byte 0x7f, 'E', 'L', 'F', 2, 1, 1
    .org 16
    .short 2, 62                        # executable, x86-64
    .long 1
    .quad BASE_USER + (user_code - user_start), 64, 0 # entry point, program headers, section headers
    .long 0
    .short 64, 56, 1, 0, 0, 0
    .long 1, 5                          # PT_LOAD, readable and executable
    .quad 0, BASE_USER, BASE_USER, user_end - user_start, user_end - user_start, 0x1000
user_code:
    .code64
    mov $172, %eax                      # iopl (Linux, arch/x86/entry/syscalls/syscall_64.tbl)
    mov $3, %edi
    syscall
    mark User
    leave_qemu User
1:  jmp 1b
user_end:

# The base line image: it ends at the reset vector (Intel SDM volume 3, 10.1.4).
.section base-line, "a"
    .org 0xff80, 0xff
    .code16
base_line:
    finish Reset
    .org 0xfff0, 0xff
    jmp base_line
    .org 0x10000, 0xff
