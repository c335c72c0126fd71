# From the reset vector, or from the PVH entry, to 64-bit mode. Everything here is the section `.start`, which linker.ld
# puts at the very end of the image, so that it ends at 4 GiB where the CPU begins.
#
# The CPU begins in real mode at f000:fff0 with a CS base of 0xffff0000 (Intel SDM volume 3, 10.1.4): the last 64 KiB
# below 4 GiB, wherever the host shows the image below 1 MiB, or does not. A near jump keeps that base; the far jump to
# protected mode replaces it. The image is never copied and never written.
#
# A host that starts it as a PVH guest has loaded it into RAM, LOADED_BIAS higher, wrapping. Once paging is on it is seen
# where it is linked, so the two starts differ in what comes before that: from `start32` on ESI is how much higher the
# image is, which is zero after a reset and tells the two apart, and EBP the address of hvm_start_info. That is whatever the
# host has left in EBX, so zero too may be one.
#
# Names in braces come from src/firmware/start/mod.rs; those of sections, and the physical addresses, from linker.ld.

.set CR0_PE, 1 << 0                     # Intel SDM volume 3, 2.5
.set CR0_WP, 1 << 16
.set CR0_NW, 1 << 29
.set CR0_CD, 1 << 30
.set CR0_PG, 1 << 31
.set CR4_PAE, 1 << 5
.set CR4_UMIP_BIT, 11
.set CR4_SMEP_BIT, 20
.set CR4_SMAP_BIT, 21
.set MSR_EFER, 0xc0000080               # Intel SDM volume 4, table 2-2
.set EFER_LME, 1 << 8
.set EFER_NXE, 1 << 11

.set CPUID_FEATURES_STRUCTURED, 7       # Intel SDM volume 2, CPUID, table 3-8: subleaf 0
.set CPUID_SMEP_BIT, 7                  # in EBX
.set CPUID_SMAP_BIT, 20                 # in EBX
.set CPUID_UMIP_BIT, 2                  # in ECX
.set CPUID_FEATURES_EXTENDED, 0x80000001 # AMD APM volume 3, appendix E.4.2
.set CPUID_LONG_MODE, 1 << 29           # in EDX
.set CPUID_NO_EXECUTE_BIT, 20           # in EDX
.set DEBUG_CONSOLE, 0x402
.set COM1, 0x3f8

.set PAGE_PRESENT, 1 << 0               # Intel SDM volume 3, 4.5.4
.set PAGE_WRITABLE, 1 << 1
.set PAGE_ACCESSED, 1 << 5              # set beforehand, so that the CPU need not write the tables
.set PAGE_DIRTY, 1 << 6
.set PAGE_LARGE, 1 << 7
.set PAGE_NO_EXECUTE_BIT, 63
.set TABLE, PAGE_PRESENT | PAGE_WRITABLE | PAGE_ACCESSED
.set LARGE_PAGE, TABLE | PAGE_DIRTY | PAGE_LARGE
.set LARGE_PAGE_SIZE, 2 << 20
.set DATA_PAGE, TABLE | PAGE_DIRTY
.set READ_ONLY_PAGE, PAGE_PRESENT | PAGE_ACCESSED
.set PAGE_SIZE, 4096

.set SELECTOR_CODE32, 0x08
.set SELECTOR_CODE64, 0x10              # __BOOT_CS of the Linux boot protocol
.set SELECTOR_DATA, 0x18                # __BOOT_DS
.set SELECTOR_CODE16, 0x20              # of gdt32
.set SELECTOR_DATA16, 0x28
.set SELECTOR_TASK, 0x30
.set SELECTOR_TASK64, 0x08              # of task_gdt

.set MULTIBOOT_MAGIC, 0x2badb002        # Multiboot specification 0.6.96, 3.2

# linker.ld computes with these.
.global start16, start32, start64, no_long_mode_text, leave_long_mode, gdt, gdt32, gdt_pointer, reset_vector
.global enter_low, enter_real_mode, enter_real_mode16, real_mode_idt_pointer, enter_pvh, pvh_entry, loaded_gdt_pointer
.global enter_multiboot, task_state, last_code, last_code_end

# ------------------------------------------------------------------------------------------------------ PVH entry note
# XEN_ELFNOTE_PHYS32_ENTRY (Xen public/elfnote.h). Eight bytes of address, as Linux has them: QEMU reads as many as the
# file's class has, others the lower four.
.section .note.pvh, "a", @note
.balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad pvh_entry_loaded

.section .start, "ax"

# ------------------------------------------------------------------------------------------------------- 16-bit mode
.code16
start16:
    cli
    cld
    # The operand is relative to CS here, and CS still has the base 0xffff0000.
    lgdtd cs:[gdt_pointer_in_segment]
    xor esi, esi
    xor ebp, ebp
    mov eax, cr0
    # A CPU resets with its caches off; with CD set every fetch from the image would go to memory.
    and eax, ~(CR0_CD | CR0_NW)
    or eax, CR0_PE
    mov cr0, eax
    .byte 0x66, 0xea                    # jmp far, 32-bit offset
    .long start32_physical
    .word SELECTOR_CODE32

# ------------------------------------------------------------------------------------------------------- 32-bit mode
.code32
pvh_entry:
    # Xen docs/misc/pvh.pandoc: 32-bit protected mode with flat segments, paging off, EBX is the address of
    # hvm_start_info. Everything is taken from where the image was loaded, as it is not where it is linked yet.
    cli
    cld
    mov ebp, ebx
    mov esi, offset LOADED_BIAS
    lgdt [loaded_gdt_pointer_loaded]
    # The large page that this code is in, to go on when paging is turned on.
    mov dword ptr [loaded_page_entry], offset LOADED_PAGE + LARGE_PAGE
    mov dword ptr [loaded_page_entry + 4], 0
    .byte 0xea                          # jmp far
    .long start32_loaded
    .word SELECTOR_CODE32

start32:
    mov eax, SELECTOR_DATA
    mov ds, eax
    mov es, eax
    mov ss, eax

    # Page tables, in RAM because a CPU with accessed and dirty bits in its nested tables treats every walk as a write,
    # which costs an emulated instruction each when the tables are in ROM. First the top two levels, and of the lowest
    # only what this code needs to go on: the first large page for data, the last one for the image. In the end:
    #
    #   0  PML4      [0] and [511] -> 1
    #   1  PDPT      [0..4]        -> 2 to 5   the low 4 GiB, at their own addresses, not to be executed
    #                [510], [511]  -> 6        the image and the firmware's own RAM, VIRTUAL_OFFSET higher
    #   2  PD        [0]           -> 7        the first 2 MiB, else large pages, as 3, 4 and 5
    #   6  PD        [0]           -> 7        RAM, not to be executed
    #                [511]         -> 8        the image
    #   7  PT        the first 2 MiB, without page zero and the guard page under the stack
    #   8  PT        the image: its constants, then its code, neither to be written
    #
    # The last entry of 5 is where the image is: at its own address, or where a PVH start has it. What is not to be
    # executed can be on a CPU that does not know how to forbid it.
    # Without long mode the next step would reset the CPU, again and again.
    mov eax, CPUID_FEATURES_EXTENDED
    cpuid
    test edx, CPUID_LONG_MODE
    jz no_long_mode
    mov esp, edx                        # there is no stack yet

    # No page is a user's, and no code either: what the CPU has against such pages and such code is turned on. All else is
    # off: an operating system that restarts the machine by a jump to the reset vector leaves its own bits, of which one
    # would have the tables read with a level more.
    mov edi, CR4_PAE
    xor eax, eax
    cpuid
    cmp eax, CPUID_FEATURES_STRUCTURED
    jb 1f
    mov eax, CPUID_FEATURES_STRUCTURED
    xor ecx, ecx
    cpuid
    and ecx, 1 << CPUID_UMIP_BIT
    shl ecx, CR4_UMIP_BIT - CPUID_UMIP_BIT
    or edi, ecx
    mov ecx, ebx
    and ecx, 1 << CPUID_SMEP_BIT
    shl ecx, CR4_SMEP_BIT - CPUID_SMEP_BIT
    or edi, ecx
    and ebx, 1 << CPUID_SMAP_BIT
    shl ebx, CR4_SMAP_BIT - CPUID_SMAP_BIT
    or edi, ebx
1:
    mov cr4, edi

    mov ebx, offset page_tables_physical
    xor edx, edx                        # the upper half of every entry
    lea eax, [ebx + 1 * 4096 + TABLE]
    mov [ebx], eax                      # PML4[0]
    mov [ebx + 4], edx
    mov [ebx + 511 * 8], eax
    mov [ebx + 511 * 8 + 4], edx
    lea edi, [ebx + 1 * 4096]           # PDPT
    lea eax, [ebx + 2 * 4096 + TABLE]   # PD 0
    mov [edi], eax
    mov [edi + 4], edx
    add eax, 4096
    mov [edi + 1 * 8], eax
    mov [edi + 1 * 8 + 4], edx
    add eax, 4096
    mov [edi + 2 * 8], eax
    mov [edi + 2 * 8 + 4], edx
    add eax, 4096
    mov [edi + 3 * 8], eax
    mov [edi + 3 * 8 + 4], edx
    mov dword ptr [ebx + 2 * 4096], LARGE_PAGE
    mov [ebx + 2 * 4096 + 4], edx
    lea eax, [esi + 0xffe00000 + LARGE_PAGE]
    mov [ebx + 5 * 4096 + 511 * 8], eax
    mov [ebx + 5 * 4096 + 511 * 8 + 4], edx

    mov cr3, ebx
    mov ecx, MSR_EFER
    rdmsr
    or eax, EFER_LME
    bt esp, CPUID_NO_EXECUTE_BIT
    jnc 1f
    or eax, EFER_NXE
1:
    wrmsr
    mov eax, cr0
    or eax, CR0_PG | CR0_WP
    mov cr0, eax
    .byte 0xea                          # jmp far
    .long start64_physical
    .word SELECTOR_CODE64

# ------------------------------------------------------------------------------------------------------- 64-bit mode
.code64
start64:
    xor ebx, ebx                        # the bit that forbids to execute, if there is one
    bt esp, CPUID_NO_EXECUTE_BIT
    rcr rbx, 1

    # The entries between, which nothing used until here: RAM holds whatever was there before a reset.
    mov edi, offset page_tables_physical + 8
    xor eax, eax
    mov ecx, 510
    rep stosq                           # PML4[1..511]
    mov edi, offset page_tables_physical + 4096 + 4 * 8
    mov ecx, 506
    rep stosq                           # PDPT[4..510]
    mov eax, offset page_tables_physical + 6 * 4096 + TABLE
    stosq
    stosq                               # PDPT[510], PDPT[511]

    # The rest of the identity map: all of 2,048 large pages but the first and the last, 31 at a time.
    add edi, 8
    mov eax, LARGE_PAGE + LARGE_PAGE_SIZE
    mov ecx, 2046 / 31
    jmp 1f                              # a host that translates code translates a block from where it is entered
1:
    .rept 31
    stosq
    add rax, LARGE_PAGE_SIZE
    .endr
    dec ecx
    jnz 1b

    # The program's own page directory.
    add edi, 8
    lea rax, [rbx + page_tables_physical + 7 * 4096 + TABLE]
    stosq
    xor eax, eax
    mov ecx, 510
    rep stosq
    mov eax, offset page_tables_physical + 8 * 4096 + TABLE
    stosq

    # The first 2 MiB, 511 pages of them seven at a time. hvm_start_info may be in page zero.
    xor eax, eax
    test esi, esi
    jz 1f
    mov eax, READ_ONLY_PAGE
1:
    stosq
    mov eax, PAGE_SIZE + DATA_PAGE
    mov ecx, 511 / 7
    jmp 1f                              # as above
1:
    .rept 7
    stosq
    add eax, PAGE_SIZE
    .endr
    dec ecx
    jnz 1b
    xor eax, eax
    mov [stack_guard_entry], rax

    # The image.
    mov ecx, offset image_entry
    rep stosq
    mov eax, offset image_physical + READ_ONLY_PAGE
    add eax, esi
    or rax, rbx
    mov ecx, offset constant_pages
1:
    stosq
    add rax, PAGE_SIZE
    loop 1b
    btr rax, PAGE_NO_EXECUTE_BIT
    mov ecx, offset code_pages
1:
    stosq
    add rax, PAGE_SIZE
    loop 1b

    # Leave the identity map for the addresses the program was linked at.
    movabs rax, offset start64_high
    jmp rax
start64_high:
    mov edi, offset page_tables_physical + 4096
    or [rdi], rbx                       # PDPT[0..4]
    or [rdi + 8], rbx
    or [rdi + 16], rbx
    or [rdi + 24], rbx
    mov dword ptr [rdi + 4096], offset page_tables_physical + 7 * 4096 + TABLE
    mov rax, cr3
    mov cr3, rax                        # forgets what was mapped otherwise

    mov ebx, esi
    mov rsi, offset data_image
    mov rdi, offset data_start
    mov ecx, offset data_qwords
    rep movsq
    mov rdi, offset bss_start
    xor eax, eax
    mov ecx, offset bss_qwords
    rep stosq

    lidt [rip + idt_pointer]
    mov rsp, offset stack_top
    # The task state, for its stack. The CPU keeps what it has loaded, so the GDT is that from before again.
    sub rsp, 16
    sgdt [rsp]
    lgdt [rip + task_gdt_pointer]
    mov eax, SELECTOR_TASK64
    ltr ax
    lgdt [rsp]
    add rsp, 16
    mov edi, ebp                        # hvm_start_info
    mov esi, ebx                        # zero after a reset
    xor ebp, ebp                        # the end of the chain for a debugger
    call {rust_start}
    ud2                                 # rust_start does not return

# The same line as every failure, on the debug console and on COM1, and the end. A UART that nobody set up still sends.
.code32
no_long_mode:
    add esi, offset no_long_mode_text_physical
1:
    lodsb
    test al, al
    jz 3f
    cmp al, 13                          # the carriage return is for the terminal at COM1
    je 2f
    mov edx, DEBUG_CONSOLE
    out dx, al
2:
    mov edx, COM1
    out dx, al
    jmp 1b
3:
    cli
    hlt
    jmp 3b
no_long_mode_text:
    .asciz "firstlight: error: the CPU has no 64-bit mode; choose another model (QEMU: -cpu)\r\n"

# ------------------------------------------------------------------------------------------------ Back to 32-bit mode
# For 32-bit code at EAX, the kernel's, enter_low, enter_pvh, enter_multiboot or enter_real_mode. ESI stays: it is
# boot_params, words for enter_low, the kernel's entry or the waking vector. EDI goes to EBX. Called in 32-bit
# compatibility mode, through the identity map, with gdt32 loaded.
#
# After a PVH start the image is not where it is linked once paging is off. So this, and what follows up to last_code_end, is
# used in a copy in RAM, which src/firmware/start/handover.rs makes.
.balign 8
last_code:
.code32
leave_long_mode:
    mov ebx, cr0
    and ebx, ~(CR0_PG | CR0_WP)
    mov cr0, ebx
    mov ebp, eax
    mov ecx, MSR_EFER
    rdmsr
    and eax, ~(EFER_LME | EFER_NXE)
    wrmsr
    xor ebx, ebx
    mov cr4, ebx
    mov ebx, SELECTOR_DATA
    mov ds, ebx
    mov es, ebx
    mov ss, ebx
    mov eax, ebp
    mov ebx, edi
    xor edi, edi
    xor ebp, ebp
    jmp eax

# -------------------------------------------------------------------------------------------------- To a low kernel
# Fills a part of low memory, where all the firmware's own is, from above, and enters the kernel as its 32-bit entry wants
# it. ESI is the address of five dwords: where to, how many dwords, the entry, boot_params, where from. GDT and code are in
# the copy of this section, above that.
enter_low:
    lodsd
    mov edi, eax
    lodsd
    mov ecx, eax
    lodsd
    mov ebx, eax
    lodsd
    mov ebp, eax
    mov esi, [esi]
    mov edx, ecx
    rep movsd
    # Nothing is left where it was: from its end down.
    lea edi, [esi - 4]
    mov ecx, edx
    xor eax, eax
    std
    rep stosd
    cld
    mov eax, ebx
    mov esi, ebp
    xor edx, edx
    xor ebx, ebx
    xor ebp, ebp
    xor edi, edi
    jmp eax

# ------------------------------------------------------------------------------------------------------ The PVH entry
# Gives TR a task state segment, as the PVH entry wants it, and jumps to ESI. EBX stays. Loading TR marks the segment's
# descriptor as busy: gdt32 is the copy in RAM.
enter_pvh:
    mov eax, esi
    xor esi, esi
    mov ecx, SELECTOR_TASK
    ltr cx
    jmp eax

# ------------------------------------------------------------------------------------------------ The Multiboot entry
# Gives FS and GS, which are as in real mode, the limit that they are to have, EAX the value that tells a kernel of its
# loader, and the kernel a stack, in the place of the page tables, which are not in use any more. Jumps to ESI; EBX stays.
enter_multiboot:
    mov eax, SELECTOR_DATA
    mov fs, eax
    mov gs, eax
    mov esp, offset page_tables_physical + 9 * 4096
    mov eax, MULTIBOOT_MAGIC
    jmp esi

# GDT for the kernel's 32-bit entry, which wants 32-bit code at 0x10, for the PVH entry, and for the way to real mode.
# Accessed bits are set beforehand, as in the GDT further down.
.balign 8
gdt32:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf9b000000ffff            # 0x10: code, 32-bit
    .quad 0x00cf93000000ffff            # 0x18: data
    .quad 0xff009bff0000ffff            # 0x20: code, 16-bit, base 0xffff0000, 64 KiB
    .quad 0x000093000000ffff            # 0x28: data, 16-bit, base 0, 64 KiB
    .quad 0x0000890000000067            # 0x30: task state, 32-bit, base 0, limit 0x67
gdt32_end:
last_code_end:

# ----------------------------------------------------------------------------------------------------- To real mode
# For an operating system that wakes from suspend at the real-mode address in ESI. The way is that of Intel SDM volume 3,
# 10.9.2: from segments that are as in real mode, with the interrupt table of real mode. Code stays in the last 64 KiB
# below 4 GiB, as it does after a reset, until the last jump.
enter_real_mode:
    lidt [real_mode_idt_pointer_physical]
    mov eax, SELECTOR_DATA16
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    .byte 0xea                          # jmp far
    .long enter_real_mode16_in_segment
    .word SELECTOR_CODE16
.code16
enter_real_mode16:
    mov eax, cr0
    and eax, ~CR0_PE
    mov cr0, eax
    # The page tables are in memory that stays the firmware's and are not in use any more: room for a far return.
    mov ax, offset real_mode_stack_segment
    mov ss, ax
    mov sp, 4096
    xor eax, eax
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov eax, esi                        # CS is the address without its low four bits, which are IP
    shr eax, 4
    push ax
    and si, 0xf
    push si
    .byte 0xcb                          # far return, 16-bit
.code64

# --------------------------------------------------------------------------------------------------------- Exceptions
# One stub a vector, eight bytes each: push the vector, go on. The common part hands the stack to Rust, which knows which
# vectors come with an error code. Nothing returns from here, so the red zone that is overwritten does not matter.
.balign 8
exception_stubs:
.set vector, 0
.rept 32
    .balign 8
    push vector
    jmp exception_common
.set vector, vector + 1
.endr
exception_common:
    cld
    mov rdi, rsp
    and rsp, -16
    call {exception}
    ud2

# ------------------------------------------------------------------------------------------------------------ Tables
# GDT: descriptors with the accessed bit set beforehand, so that the CPU does not write to them (Intel SDM volume 3,
# 3.4.5). The kernel's 64-bit entry wants selectors 0x10 and 0x18 (Linux Documentation/arch/x86/boot.rst).
.balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            # 0x08: code, 32-bit, base 0, 4 GiB
    .quad 0x00af9b000000ffff            # 0x10: code, 64-bit
    .quad 0x00cf93000000ffff            # 0x18: data, base 0, 4 GiB
gdt_end:

.balign 4
    .word 0
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt_physical

.balign 4
    .word 0
.global gdt32_pointer
gdt32_pointer:                          # ten bytes: it is loaded in 64-bit mode
    .word gdt32_end - gdt32 - 1
    .long gdt32_in_ram
    .long 0

# The GDT where a PVH start has it.
.balign 4
    .word 0
loaded_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt_loaded

# The interrupt table of real mode: 256 vectors at 0.
.balign 4
    .word 0
real_mode_idt_pointer:
    .word 0x3ff
    .long 0

# Task state (Intel SDM volume 3, figure 8-11): the stack of every exception, as the one that was in use may be what is
# wrong. It is the same memory from its top again, since nothing returns.
.balign 8
task_state:
    .fill 0x24, 1, 0
    .quad stack_top                     # IST1
    .fill 0x66 - 0x2c, 1, 0
    .word 0x68                          # no map of ports
# Loading TR marks the descriptor as busy, so it is in RAM.
.section .data.task, "aw"
.balign 8
task_gdt:
    .quad 0
    .quad task_descriptor_low
    .quad task_descriptor_high
task_gdt_end:
.section .start, "ax"
.balign 8
    .word 0, 0, 0
task_gdt_pointer:
    .word task_gdt_end - task_gdt - 1
    .quad task_gdt

# IDT: interrupt gates to the stubs (Intel SDM volume 3, 6.14.1). Their addresses are constants: this section ends at
# VIRTUAL_OFFSET, so only the low word differs.
.balign 16
idt:
.set vector, 0
.rept 32
    .word {START_OFFSET} + (exception_stubs - start16) + vector * 8
    .word SELECTOR_CODE64
    .word 0x8e01                        # present, ring 0, 64-bit interrupt gate, stack IST1
    .word {VIRTUAL_HIGH_WORD}
    .long 0xffffffff
    .long 0
.set vector, vector + 1
.endr
idt_end:

.balign 8
    .word 0, 0, 0
idt_pointer:
    .word idt_end - idt - 1
    .quad idt

# ------------------------------------------------------------------------------------------------------ Reset vector
.org {START_SIZE} - 16
.code16
reset_vector:
    .byte 0xe9                          # jmp near
    .word start16 - reset_vector - 3
# Behind it the date and the model, as a PC's BIOS has them: some hosts show this below 1 MiB (src/tables/bios_end.rs).
.org {START_SIZE} - 11
    .quad {RELEASE_DATE}
.org {START_SIZE} - 2
    .byte 0xfc
.org {START_SIZE}
.code64
