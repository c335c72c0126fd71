# From the reset vector, or from the PVH entry point, to 64-bit mode. All code is in the section `.start`, which linker.ld puts at
# the end of the image, so that it ends at 4 GiB where the CPU starts.
#
# The CPU starts in real mode at f000:fff0 with a CS base of 0xffff0000 (Intel SDM volume 3, 10.1.4): in the last 64 KiB below 4
# GiB, whether or not the host also maps the image below 1 MiB. A near jump keeps that base; the far jump to protected mode
# replaces it. The image is never copied and never written.
#
# A host that starts the image as a PVH guest has loaded it into RAM, LOADED_BIAS higher, wrapping. After paging is enabled, the
# image is at its linked addresses, so the two starts differ only before that. From `start32` on, ESI is the distance (zero after
# a reset, which distinguishes the two), and EBP the address of hvm_start_info. EBP is the host's EBX, so zero is a valid address
# too.
#
# Names in braces come from src/firmware/start/mod.rs, section names and physical addresses from linker.ld.

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

# linker.ld uses these.
.global start16, start32, start64, no_long_mode_text, leave_long_mode, gdt, gdt32, gdt_pointer, reset_vector
.global enter_low, enter_real_mode, enter_real_mode16, real_mode_idt_pointer, enter_pvh, pvh_entry, loaded_gdt_pointer
.global enter_multiboot, task_state, last_code, last_code_end

# ----------------------------------------------------------------------------------------------------- PVH note
# XEN_ELFNOTE_PHYS32_ENTRY (Xen public/elfnote.h). The address has eight bytes, as in Linux: QEMU reads as many bytes as the
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
    # The operand is relative to CS, which still has the base 0xffff0000.
    lgdtd cs:[gdt_pointer_in_segment]
    xor esi, esi
    xor ebp, ebp
    mov eax, cr0
    # A CPU resets with its caches disabled. With CD set, every instruction fetch would go to memory.
    and eax, ~(CR0_CD | CR0_NW)
    or eax, CR0_PE
    mov cr0, eax
    .byte 0x66, 0xea                    # jmp far, 32-bit offset
    .long start32_physical
    .word SELECTOR_CODE32

# ------------------------------------------------------------------------------------------------------- 32-bit mode
.code32
pvh_entry:
    # Xen docs/misc/pvh.pandoc: 32-bit protected mode with flat segments, paging off, EBX is the address of hvm_start_info. The
    # code uses load addresses, because the linked ones are not mapped yet.
    cli
    cld
    mov ebp, ebx
    mov esi, offset LOADED_BIAS
    lgdt [loaded_gdt_pointer_loaded]
    # Identity-map the large page of this code, so that it continues after paging is enabled.
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

    # The page tables are in RAM: a CPU with accessed and dirty bits in its nested tables treats every walk as a write, and with
    # tables in ROM each write would cost an emulated instruction. First build the top two levels, and of the lowest only what
    # this code needs: the first large page for data, the last one for the image. In the end:
    #
    #   0  PML4      [0] and [511] -> 1
    #   1  PDPT      [0..4]        -> 2 to 5   the low 4 GiB, identity-mapped, not executable
    #                [510], [511]  -> 6        the image and the firmware's own RAM, VIRTUAL_OFFSET higher
    #   2  PD        [0]           -> 7        the first 2 MiB, else large pages, as 3, 4 and 5
    #   6  PD        [0]           -> 7        RAM, not executable
    #                [511]         -> 8        the image
    #   7  PT        the first 2 MiB, except page zero and the guard page under the stack
    #   8  PT        the image: its constants, then its code, both read-only
    #
    # The last entry of 5 maps the image: at its own address, or at its load address after a PVH start. Without NX, everything is
    # executable.
    # Without long mode, the next step would reset the CPU, again and again.
    mov eax, CPUID_FEATURES_EXTENDED
    cpuid
    test edx, CPUID_LONG_MODE
    jz no_long_mode
    mov esp, edx                        # there is no stack yet

    # There are no user pages and no ring-3 code, so enable SMEP, SMAP and UMIP. Clear all other bits: an operating system that
    # restarts the machine by a jump to the reset vector leaves its own, and one of them would enable five-level paging.
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

    # Clear the entries between, which were not used until here: RAM has whatever was there before a reset.
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

    # The rest of the identity map: the 2,048 large pages except the first and the last, 31 at a time.
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

    # The first 2 MiB: 511 of its pages, seven at a time. Page zero may have hvm_start_info.
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

    # The image, two pages at a time.
    mov ecx, offset image_entry
    rep stosq
    mov eax, offset image_physical + READ_ONLY_PAGE
    add eax, esi
    or rax, rbx
    mov ecx, offset constant_pages_by_two
1:
    .rept 2
    stosq
    add rax, PAGE_SIZE
    .endr
    loop 1b
    btr rax, PAGE_NO_EXECUTE_BIT
    mov ecx, offset code_pages_by_two
1:
    .rept 2
    stosq
    add rax, PAGE_SIZE
    .endr
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
    # Load the task state, for its stack. The CPU keeps what it has loaded, so the previous GDT is loaded again.
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

# Print the error in the form of every failure, on the debug console and COM1, then halt. An uninitialized UART also sends.
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
# Enters the 32-bit code at EAX: the kernel's, enter_low, enter_pvh, enter_multiboot or enter_real_mode. ESI stays: it is
# boot_params, the words for enter_low, the kernel's entry point or the waking vector. EDI goes to EBX. Called in 32-bit
# compatibility mode, through the identity map, with gdt32 loaded.
#
# After a PVH start, the image is not at its linked address once paging is off. So the code from here to last_code_end runs from a
# copy in RAM, which src/firmware/start/handover.rs makes.
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
# Copies a block from above over low memory, where the firmware's own memory is, and enters the kernel at its 32-bit entry point.
# ESI is the address of five dwords: target, number of dwords, entry point, boot_params, source. GDT and code are in the copy of
# this section, above that memory.
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
    # Clear the source, from its end down.
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

# ------------------------------------------------------------------------------------------------------ The PVH entry point
# Loads TR with a task state segment, as the PVH entry point requires, and jumps to ESI. EBX stays. Loading TR marks the segment's
# descriptor as busy: gdt32 is the copy in RAM.
enter_pvh:
    mov eax, esi
    xor esi, esi
    mov ecx, SELECTOR_TASK
    ltr cx
    jmp eax

# ------------------------------------------------------------------------------------------------ The Multiboot entry
# Sets the limits of FS and GS, which are as in real mode, to those that the specification requires, and EAX to the magic value of
# a Multiboot loader. Gives the kernel a stack in place of the page tables, which are no longer used. Jumps to ESI; EBX stays.
enter_multiboot:
    mov eax, SELECTOR_DATA
    mov fs, eax
    mov gs, eax
    mov esp, offset page_tables_physical + 9 * 4096
    mov eax, MULTIBOOT_MAGIC
    jmp esi

# GDT for the kernel's 32-bit entry point, which requires 32-bit code at 0x10, for the PVH entry point, and for the switch to real
# mode. Accessed bits are already set, as in the GDT below.
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
# Enters a suspended operating system at the real-mode address in ESI. Follows Intel SDM volume 3, 10.9.2: first load segments as
# in real mode, and the interrupt table of real mode. Until the last jump, code stays in the last 64 KiB below 4 GiB, as after a
# reset.
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
    # The page tables are in memory that stays the firmware's and are no longer used: use it for a far return.
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
# One stub for each vector, eight bytes each: push the vector, jump to the common part. That passes the stack to Rust, which knows
# which vectors push an error code. Nothing returns from here, so overwriting the red zone does not matter.
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
# GDT: descriptors with the accessed bit already set, so that the CPU does not write to them (Intel SDM volume 3, 3.4.5). The
# kernel's 64-bit entry point requires selectors 0x10 and 0x18 (Linux Documentation/arch/x86/boot.rst).
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

# The GDT at its load address, for a PVH start.
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

# Task state (Intel SDM volume 3, figure 8-11): the stack for every exception, because the stack in use may be the cause. It is
# the same memory from its top again, since nothing returns.
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
# After it come the date and the model, as in a PC's BIOS: some hosts map this below 1 MiB (src/tables/bios_end.rs).
.org {START_SIZE} - 11
    .quad {RELEASE_DATE}
.org {START_SIZE} - 2
    .byte 0xfc
.org {START_SIZE}
.code64
