# The test kernel: it reports the state in which it was entered, and then reads and writes the machine as a test requests.
#
# First it sends the state of the CPU: one byte, the size of a word in bytes (4 from the 32-bit entry point, 8 from the
# 64-bit one), then the words that `state` below pushes, the last one first. After that it answers requests for ever. A
# request is 16 bytes on COM2:
#
#   byte 0        the operation, see `dispatch`
#   byte 1        a byte to store
#   bytes 4-7     a length, a port or a register number
#   bytes 8-15    an address or a value
#
# It sends to the port REPLY, where QEMU has a device that takes bytes at any rate.
#
# The PVH entry point (`.pvh` below) and the Multiboot entry point (`.multiboot`) continue as the 32-bit one.
#
# It runs wherever it is loaded. Its own memory, at `request`, is above everything that a test puts into the kernel file, so
# the file's bytes stay unchanged. It uses only instructions that a KVM which emulates ring 0 can run.

.intel_syntax noprefix

.set REPLY, 0xe9
.set REQUEST, 0x2f8                     # COM2
.set REQUEST_FIFO, REQUEST + 2
.set REQUEST_STATUS, REQUEST + 5
.set FIFO_ON, 1
.set STATUS_RECEIVED, 1

.set BOOT_PARAMS_SCRATCH_END, 0x1e8     # Linux, zero-page.rst: 4 bytes there are the kernel's
# The kernel's own memory, from where it is loaded.
.set request, 0x80000
.set answer, request + 16
.set interrupt_table, request + 0x1000
.set stack_top, request + 0x4000

# How many vectors have a gate, and the gate's type (Intel SDM volume 3, 6.11): present, interrupt.
.set VECTORS, 32
.set GATE, 0x8e00
.set STUB_LEN, 8
# The first 8259, and its end-of-interrupt command.
.set PIC_COMMAND, 0x20
.set PIC_END, 0x20
# A port that is read to let time pass.
.set DELAY, 0x80
.set NO_VECTOR, -1

.set MSR_EFER, 0xc0000080
.set BOOT_CS, 0x10                      # Linux, boot.rst
.set BOOT_DS, 0x18

# The address of the code for a jump in real mode, and its segments. These are defined before their use, because the assembler
# takes an undefined name for an operand in memory.
.set JUMP, 0x7000
.set JUMP_CS, 0x08
.set JUMP_CS16, 0x10
.set JUMP_DS16, 0x18
.set CR0_PE, 1 << 0
.set CR0_PG, 1 << 31
.set EFER_LME, 1 << 8

# `r` is the first letter of the registers of this mode. The flags are on the stack already; bx is where the kernel is.
.macro state r
    push \r\()bx
    mov eax, cs
    push \r\()ax
    mov eax, ds
    push \r\()ax
    mov eax, es
    push \r\()ax
    mov eax, ss
    push \r\()ax
    mov \r\()ax, cr0
    push \r\()ax
    mov \r\()ax, cr3
    push \r\()ax
    mov \r\()ax, cr4
    push \r\()ax
    mov ecx, MSR_EFER
    rdmsr
    push \r\()ax
    mov \r\()si, \r\()sp
.endm

.set STATE_WORDS, 14

.macro reload_data_segments
    mov eax, BOOT_DS
    mov ds, eax
    mov es, eax
    mov ss, eax
.endm

.macro serve r, word
    cld
    # Enabling the FIFO empties it, so this comes first: the test sends as soon as it has received something.
    mov edx, REQUEST_FIFO
    mov al, FIFO_ON
    out dx, al
    mov edx, REPLY
    mov al, \word
    out dx, al
    mov ecx, STATE_WORDS * \word
    rep outsb

next_\word:
    lea \r\()di, [\r\()bx + request]
    mov ecx, 16
1:
    mov edx, REQUEST_STATUS
2:
    pause
    in al, dx
    test al, STATUS_RECEIVED
    jz 2b
    mov edx, REQUEST
    in al, dx
    mov [\r\()di], al
    inc \r\()di
    dec ecx
    jnz 1b

    # The operands, in the registers that each operation uses.
    mov ecx, [\r\()bx + request + 4]
    mov edx, ecx
    mov \r\()si, [\r\()bx + request + 8]
    mov \r\()di, \r\()si

dispatch_\word:
    mov al, [\r\()bx + request]
    cmp al, 'r'
    je read_memory_\word
    cmp al, 'f'
    je fill_memory_\word
    cmp al, 'l'
    je read_memory32_\word
    cmp al, 'w'
    je write_memory32_\word
    cmp al, 'h'
    je hash_memory_\word
    cmp al, 'b'
    je read_port8_\word
    cmp al, 'd'
    je read_port32_\word
    cmp al, 'W'
    je write_port16_\word
    cmp al, 'D'
    je write_port32_\word
    cmp al, 'm'
    je read_msr_\word
    cmp al, 's'
    je load_segment_\word
    cmp al, 'B'
    je write_port8_\word
    cmp al, 'R'
    je write_port8_and_stop_\word
    cmp al, 'S'
    je write_port16_and_stop_\word
    cmp al, 't'
    je triple_fault_\word
    cmp al, 'i'
    je take_interrupt_\word
    cmp al, 'j'
    je jump_to_reset_vector_\word
.if \word == 8
    cmp al, 'c'
    je call_function_\word
.endif
    ud2                                 # 'u' is for this

read_memory_\word:
    mov edx, REPLY
    rep outsb
    jmp next_\word

fill_memory_\word:
    mov al, [\r\()bx + request + 1]
    rep stosb
    jmp answer_\word

read_memory32_\word:
    mov eax, [\r\()si]
    jmp answer_\word

write_memory32_\word:
    mov [\r\()si], ecx
    jmp answer_\word

# An FNV-1 of the dwords.
hash_memory_\word:
    shr ecx, 2
    xor edx, edx
1:
    imul edx, edx, 0x01000193
    lodsd
    xor edx, eax
    dec ecx
    jnz 1b
    mov eax, edx
    jmp answer_\word

read_port8_\word:
    in al, dx
    movzx eax, al
    jmp answer_\word

read_port32_\word:
    in eax, dx
    jmp answer_\word

write_port8_\word:
    mov eax, esi
    out dx, al
    jmp answer_\word

# For a device that ends the machine: sends nothing, not even a part of an answer.
write_port8_and_stop_\word:
    mov eax, esi
    out dx, al
    jmp stop_\word
write_port16_and_stop_\word:
    mov eax, esi
    out dx, ax
stop_\word:
    cli
    hlt
    jmp stop_\word

write_port16_\word:
    mov eax, esi
    out dx, ax
    jmp answer_\word

write_port32_\word:
    mov eax, esi
    out dx, eax
    jmp answer_\word

read_msr_\word:
    rdmsr
    mov [\r\()bx + answer + 4], edx
    jmp answer_\word

# An exception with no room in the interrupt table for it, nor for the double fault that it becomes.
triple_fault_\word:
    lidt [\r\()bx + empty_idt - entry32]
    ud2

load_segment_\word:
    mov ds, esi
    jmp answer_\word

# Enables interrupts until one arrives or a port was read ECX times. Sends its vector, or NO_VECTOR.
take_interrupt_\word:
    mov esi, ecx
    lea \r\()di, [\r\()bx + interrupt_table]
    lea \r\()ax, [\r\()bx + stubs_\word - entry32]
    mov ecx, VECTORS
1:
    mov \r\()dx, \r\()ax
    mov [\r\()di], dx
    mov word ptr [\r\()di + 2], BOOT_CS
    mov word ptr [\r\()di + 4], GATE
    shr \r\()dx, 16
    mov [\r\()di + 6], dx
.if \word == 8
    shr rdx, 16
    mov [rdi + 8], rdx
.endif
    add \r\()di, 2 * \word
    add \r\()ax, STUB_LEN
    dec ecx
    jnz 1b
    lea \r\()ax, [\r\()bx + interrupt_table]
    mov [\r\()di + 2], \r\()ax
    mov word ptr [\r\()di], 2 * \word * VECTORS - 1
    lidt [\r\()di]
    mov ecx, esi
    sti
1:
    in al, DELAY
    dec ecx
    jnz 1b
    cli
    mov eax, NO_VECTOR
    jmp answer_\word
.balign STUB_LEN
stubs_\word:
.set vector, 0
.rept VECTORS
    .balign STUB_LEN
    push vector
    jmp interrupted_\word
.set vector, vector + 1
.endr
interrupted_\word:
    pop \r\()cx
    lea \r\()sp, [\r\()bx + stack_top]
    mov al, PIC_END
    out PIC_COMMAND, al
    mov eax, ecx
    jmp answer_\word

.if \word == 8
# Calls a function as UEFI does (UEFI 2.3.4.2). Its address and its five arguments, of 8 bytes each, are at the operand.
call_function_\word:
    mov rbp, rsp
    and rsp, -16
    sub rsp, 0x30
    mov rcx, [rsi + 8]
    mov rdx, [rsi + 16]
    mov r8, [rsi + 24]
    mov r9, [rsi + 32]
    mov rax, [rsi + 40]
    mov [rsp + 0x20], rax
    call [rsi]
    mov rsp, rbp
    mov rdx, rax
    shr rdx, 32
    mov [rbx + answer + 4], edx
    jmp answer_\word
.endif

# Restarts the machine as operating systems of PCs do: by a jump, in real mode, to the segment and the offset in EDX. The code
# for it runs below 64 KiB.
jump_to_reset_vector_\word:
    lea \r\()si, [\r\()bx + jump - entry32]
    mov ecx, jump_end - jump
    mov edi, JUMP
    rep movsb
    mov [JUMP + jump_target - jump], edx
    lgdt [JUMP + jump_gdt_pointer - jump]
    push JUMP_CS
    push JUMP + jump32 - jump
.if \word == 8
    retfq
.else
    retf
.endif

# Sends 8 bytes: EAX, and the dword stored after it.
answer_\word:
    mov [\r\()bx + answer], eax
    lea \r\()si, [\r\()bx + answer]
    mov ecx, 8
    mov edx, REPLY
    rep outsb
    jmp next_\word
.endm

.text
# ------------------------------------------------------------------------------------------------- 32-bit entry point
.code32
entry32:
    # Reaches a stack without losing a register, as Linux does.
    lea esp, [esi + BOOT_PARAMS_SCRATCH_END]
    call here
here:
    pop esp
    lea esp, [esp + stack_top - (here - entry32)]
    pushf
    push esi
    push edi
    push ebp
    push ebx
    lea ebx, [esp + 5 * 4 - stack_top]
    state e
    reload_data_segments
    push BOOT_CS
    lea eax, [ebx + (reloaded32 - entry32)]
    push eax
    retf
reloaded32:
    jmp serve32

# ------------------------------------------------------------------------------------------------- 64-bit entry point
.org 0x200
.code64
entry64:
    lea rsp, [rip + entry32]
    lea rsp, [rsp + stack_top]
    pushf
    push rsi
    push rdi
    push rbp
    push rbx
    lea rbx, [rip + entry32]
    state r
    reload_data_segments
    push BOOT_CS
    lea rax, [rip + reloaded64]
    push rax
    retfq
reloaded64:
    serve r, 8

.code32
serve32:
    serve e, 4
.code64

empty_idt:
    .word 0
    .quad 0

# Copied to JUMP, and entered in 32-bit mode, with paging or without.
.balign 8
jump:
jump_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            # JUMP_CS: 32-bit
    .quad 0x00009b000000ffff            # JUMP_CS16: 16-bit, base 0, 64 KiB
    .quad 0x000093000000ffff            # JUMP_DS16
jump_gdt_pointer:                       # ten bytes, for 64-bit mode
    .word jump_gdt_pointer - jump_gdt - 1
    .long JUMP + jump_gdt - jump
    .long 0
jump_idt_pointer:
    .word 0x3ff
    .long 0
.code32
jump32:
    mov eax, cr0
    and eax, ~CR0_PG
    mov cr0, eax
    mov ecx, MSR_EFER
    rdmsr
    and eax, ~EFER_LME
    wrmsr
    xor eax, eax
    mov cr4, eax
    lidt [JUMP + jump_idt_pointer - jump]
    mov eax, JUMP_DS16
    mov ds, eax
    mov es, eax
    mov ss, eax
    .byte 0xea                          # jmp far
    .long JUMP + jump16 - jump
    .word JUMP_CS16
.code16
jump16:
    mov eax, cr0
    and eax, ~CR0_PE
    mov cr0, eax
    .byte 0xea                          # jmp far
jump_target:
    .long 0                             # the offset, and the segment above it
jump_end:
.code64

# ---------------------------------------------------------------------------------------------- Waking from suspend
# A separate section. The test copies it below 1 MiB, writes the kernel's address into it, and lets the machine wake up there.
# It sends the byte 2 and twelve dwords, the state of the CPU, and then answers requests as from the 32-bit entry point.
# It assumes only that CS:IP is its beginning.

.macro send_dword
    mov cx, 4
1:
    out dx, al
    shr eax, 8
    loop 1b
.endm

.code32
awake32:
    reload_data_segments
    lea esp, [ebx + stack_top]
    cld
    jmp next_4

.section .wake, "ax"
.code16
wake:
    jmp 1f
.balign 4
wake_base:                              # where the kernel is: 4 bytes from the beginning
    .long 0
1:
    mov esi, ss                         # its own stack, after the code
    mov ax, cs
    mov ss, ax
    mov edi, esp
    mov esp, 0x2000
    pushfd
    call 1f
1:
    pop bx
    sub bx, offset 1b - wake            # IP at the start
    mov edx, REQUEST_FIFO
    mov al, FIFO_ON
    out dx, al
    mov edx, REPLY
    mov al, 2
    out dx, al
    pop eax
    send_dword                          # flags
    xor eax, eax
    mov ax, cs
    send_dword
    movzx eax, bx
    send_dword
    xor eax, eax
    mov ax, ds
    send_dword
    xor eax, eax
    mov ax, es
    send_dword
    movzx eax, si
    send_dword                          # SS
    mov eax, edi
    send_dword                          # ESP
    mov eax, cr0
    send_dword
    mov eax, cr4
    send_dword
    mov ecx, MSR_EFER
    rdmsr
    mov edx, REPLY
    send_dword
    sub sp, 8
    mov bp, sp
    sidt [bp]
    movzx eax, word ptr [bp]
    send_dword                          # the limit of the interrupt table
    mov eax, [bp + 2]
    send_dword                          # and its base

    xor eax, eax
    mov ax, cs
    shl eax, 4
    movzx ecx, bx
    lea ecx, [eax + ecx + (wake_gdt - wake)]
    mov [bp + 2], ecx
    mov word ptr [bp], wake_gdt_end - wake_gdt - 1
    lgdtd [bp]
    mov ebx, cs:[bx + (wake_base - wake)]
    lea ecx, [ebx + (awake32 - entry32)]
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    pushd BOOT_CS
    push ecx
    .byte 0x66, 0xcb                    # far return, 32-bit
.balign 8
wake_gdt:
    .quad 0, 0
    .quad 0x00cf9b000000ffff            # BOOT_CS
    .quad 0x00cf93000000ffff            # BOOT_DS
wake_gdt_end:

# ---------------------------------------------------------------------------------------------------- PVH entry point
# A separate section for an ELF file: linked at PVH_BASE, with all of .text at PVH_TEXT. It stores what the 32-bit entry
# point does not send, TR and the address of the GDT. It changes no flag and no register except ESI, which has no value yet.
.set PVH_BASE, 0x200000
.set PVH_TEXT, 0x1000                   # from PVH_BASE
.set PVH_TR, PVH_BASE + 0x100
.set PVH_GDT, PVH_BASE + 0x108
.set PVH_SCRATCH, PVH_BASE + 0x200      # for entry32, in place of boot_params

.section .pvh, "ax"
.code32
pvh_entry:
    str word ptr [PVH_TR]
    sgdt [PVH_GDT]
    mov esi, PVH_SCRATCH
    jmp pvh_entry + PVH_TEXT

# ---------------------------------------------------------------------------------------------- Multiboot entry point
# The same for a file that begins with a Multiboot header (Multiboot specification 0.6.96, 3.1), also linked at PVH_BASE. It
# stores EAX, FS and GS, ESP, the address of the GDT, and a dword at a high offset in FS and GS, which shows their limits.
.set MULTIBOOT_MAGIC, 0x1badb002
.set MULTIBOOT_ENTRY, 0x40              # from PVH_BASE: after the header, whose fields the test chooses
.set MULTIBOOT_EAX, PVH_BASE + 0x110
.set MULTIBOOT_FS, PVH_BASE + 0x114
.set MULTIBOOT_GS, PVH_BASE + 0x118
.set MULTIBOOT_ESP, PVH_BASE + 0x11c
.set MULTIBOOT_BY_FS, PVH_BASE + 0x120
.set MULTIBOOT_BY_GS, PVH_BASE + 0x124

.section .multiboot, "ax"
.code32
multiboot_start:
    .long MULTIBOOT_MAGIC
.org MULTIBOOT_ENTRY
    mov [MULTIBOOT_EAX], eax
    mov [MULTIBOOT_ESP], esp
    mov word ptr [MULTIBOOT_FS], fs
    mov word ptr [MULTIBOOT_GS], gs
    sgdt [PVH_GDT]
    mov eax, fs:[PVH_BASE]
    mov [MULTIBOOT_BY_FS], eax
    mov eax, gs:[PVH_BASE]
    mov [MULTIBOOT_BY_GS], eax
    push eax                            # kernels count on a stack
    pop eax
    mov esi, PVH_SCRATCH
    jmp multiboot_start + PVH_TEXT
