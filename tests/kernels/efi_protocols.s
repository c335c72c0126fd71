# An EFI program that calls protocols of the firmware, and returns success, or the number of the step that failed.
# SEED is 1 on a CPU with RDSEED, else 0.

.include "efi_header.s"

    jmp start

# Finds a protocol, and has its interface in `rsi`.
.macro locate guid
    lea rcx, [rip + \guid]
    xor edx, edx
    lea r8, [rip + interface]
    mov rax, [rdi + 96]                 # BootServices
    call [rax + 320]                    # LocateProtocol
    test rax, rax
    check z
    mov rsi, [rip + interface]
.endm

start:
    push rbx
    push rsi
    push rdi
    push rbp
    sub rsp, 0x28
    mov rdi, rdx
    xor ebx, ebx

    # Steps 1 to 7: random numbers, which are not the same twice.
    locate rng
    mov rcx, rsi
    xor edx, edx
    mov r8d, 80
    lea r9, [rip + first]
    call [rsi + 8]                      # GetRNG
    test rax, rax
    check z
    mov rcx, rsi
    lea rdx, [rip + counter_mode]
    mov r8d, 80
    lea r9, [rip + second]
    call [rsi + 8]
    test rax, rax
    check z
    mov rax, [rip + first + 72]
    cmp rax, [rip + second + 72]
    check nz
    # Another algorithm is not supported.
    mov rcx, rsi
    lea rdx, [rip + rng]
    mov r8d, 8
    lea r9, [rip + first]
    call [rsi + 8]
    mov rdx, 0x8000000000000003
    cmp rax, rdx
    check z
    # There are one or two algorithms, of 16 bytes each.
    mov rcx, rsi
    lea rdx, [rip + size]
    xor r8d, r8d
    call [rsi]                          # GetInfo
    mov rdx, 0x8000000000000005
    cmp rax, rdx
    jnz failed
    cmp qword ptr [rip + size], 16 * (1 + SEED)
    check z
    # Raw numbers are there, or not supported.
    mov rcx, rsi
    lea rdx, [rip + raw]
    mov r8d, 8
    lea r9, [rip + first]
    call [rsi + 8]
.if SEED
    test rax, rax
    jnz failed
    mov rax, [rip + first]
    cmp rax, [rip + second]
    check nz
.else
    mov rdx, 0x8000000000000003
    cmp rax, rdx
    check z
.endif

    # Steps 8 to 10: a path and a node of text.
    locate from_text
    lea rcx, [rip + path_text]
    call [rsi + 8]                      # ConvertTextToDevicePath
    mov [rip + path], rax
    test rax, rax
    check nz
    lea rcx, [rip + node_text]
    call [rsi]                          # ConvertTextToDeviceNode
    mov [rip + node], rax
    test rax, rax
    check nz

    # Steps 11 to 18: paths made of these.
    locate utilities
    mov rcx, [rip + path]
    call [rsi]                          # GetDevicePathSize
    cmp rax, 24
    check z
    mov rcx, [rip + path]
    mov rdx, [rip + node]
    call [rsi + 24]                     # AppendDeviceNode
    mov [rip + both], rax
    test rax, rax
    check nz
    mov rcx, [rip + both]
    mov rdx, [rip + path]
    call [rsi + 32]                     # AppendDevicePathInstance
    mov rbp, rax
    mov rcx, rax
    call [rsi + 48]                     # IsDevicePathMultiInstance
    cmp al, 1
    check z
    mov [rip + rest], rbp
    lea rcx, [rip + rest]
    lea rdx, [rip + size]
    call [rsi + 40]                     # GetNextDevicePathInstance
    cmp qword ptr [rip + size], 42
    check z
    mov [rip + both], rax
    lea rcx, [rip + rest]
    lea rdx, [rip + size]
    call [rsi + 40]
    cmp qword ptr [rip + rest], 0
    check z
    cmp qword ptr [rip + size], 24
    check z
    xor ecx, ecx
    call [rsi + 8]                      # DuplicateDevicePath
    test rax, rax
    check z

    # Steps 19 to 21: the text of a path.
    locate to_text
    mov rcx, [rip + both]
    xor edx, edx
    xor r8d, r8d
    call [rsi + 8]                      # ConvertDevicePathToText
    test rax, rax
    check nz
    mov rcx, [rdi + 64]                 # ConOut
    mov rdx, rax
    call [rcx + 8]                      # OutputString
    test rax, rax
    check z
    xor ebx, ebx
failed:
    mov eax, ebx
    add rsp, 0x28
    pop rbp
    pop rdi
    pop rsi
    pop rbx
    ret

    .balign 8
rng:
    .long 0x3152bca5
    .short 0xeade, 0x433d
    .byte 0x86, 0x2e, 0xc0, 0x1c, 0xdc, 0x29, 0x1f, 0x44
counter_mode:
    .long 0x44f0de6e
    .short 0x4d8c, 0x4045
    .byte 0xa8, 0xc7, 0x4d, 0xd1, 0x68, 0x85, 0x6b, 0x9e
raw:
    .long 0xe43176d7
    .short 0xb6e8, 0x4827
    .byte 0xb7, 0x84, 0x7f, 0xfd, 0xc4, 0xb6, 0x85, 0x61
utilities:
    .long 0x0379be4e
    .short 0xd706, 0x437d
    .byte 0xb0, 0x37, 0xed, 0xb8, 0x2f, 0xb7, 0x72, 0xa4
to_text:
    .long 0x8b843e20
    .short 0x8132, 0x4852
    .byte 0x90, 0xcc, 0x55, 0x1a, 0x4e, 0x4a, 0x7f, 0x1c
from_text:
    .long 0x05c99a21
    .short 0xc70f, 0x4ad2
    .byte 0x8a, 0x5f, 0x35, 0xdf, 0x33, 0x43, 0xf5, 0x1e
path_text:
    .string16 "VenMedia(1428F772-B64A-441E-B8C3-9EBDD7F893C7)"
node_text:
    .string16 "kernel"

    .balign 8
interface: .quad 0
size: .quad 0
path: .quad 0
node: .quad 0
both: .quad 0
rest: .quad 0
first: .fill 80
second: .fill 80
    .balign 0x1000
end:
