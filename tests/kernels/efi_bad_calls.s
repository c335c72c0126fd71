# An EFI program that makes bad calls, loads itself by its device path, and starts what it has loaded, which leaves by Exit. Returns
# success, or the number of the step that failed.

.include "efi_header.s"

    jmp start

.macro service offset
    mov rax, [rip + services]
    call [rax + \offset]
.endm

# The service must have returned this status.
.macro is status
    mov rdx, \status
    cmp rax, rdx
    check z
.endm

.equ INVALID_PARAMETER, 0x8000000000000002
.equ NOT_FOUND, 0x800000000000000e
.equ OF_THE_FIRMWARE, 0x50000
.equ NOT_MAPPED, 0x0000400000000000

# GetMemoryMap with its length at the address in rcx.
get_map:
    sub rsp, 0x38
    lea rdx, [rip + map]
    lea r8, [rip + key]
    lea r9, [rip + number]
    lea rax, [rip + number]
    mov [rsp + 32], rax
    service 56
    add rsp, 0x38
    ret

start:
    push rbx
    push rsi
    push rdi
    push rbp
    sub rsp, 0x48
    mov rax, [rdx + 96]
    mov [rip + services], rax
    mov [rip + handle], rcx
    xor ebx, ebx
    lea rdx, [rip + loaded_image]
    lea r8, [rip + own]
    service 152                         # HandleProtocol
    test rax, rax
    check z
    mov rsi, [rip + own]
    cmp qword ptr [rsi + 8], 0          # the parent
    jnz child

    # Steps 2 to 5: pools.
    mov ecx, 2
    mov edx, 8
    xor r8d, r8d
    service 64                          # AllocatePool
    is INVALID_PARAMETER
    xor ecx, ecx
    service 72                          # FreePool
    is INVALID_PARAMETER
    mov ecx, 0x1234567
    service 72
    is INVALID_PARAMETER
    mov rcx, NOT_MAPPED
    service 72
    is INVALID_PARAMETER

    # Steps 6 to 9: null, the firmware's own memory, memory that is not there, an address that is not canonical.
    xor ecx, ecx
    call get_map
    is INVALID_PARAMETER
    mov ecx, OF_THE_FIRMWARE
    call get_map
    is INVALID_PARAMETER
    mov rcx, NOT_MAPPED
    call get_map
    is INVALID_PARAMETER
    mov rcx, 0x0fff000000000000
    call get_map
    is INVALID_PARAMETER

    # Steps 10 to 13: a misaligned address, pages of the firmware, a handle that is none, a null GUID.
    lea rcx, [rip + image + 1]
    mov edx, 1
    service 48                          # FreePages
    is INVALID_PARAMETER
    mov ecx, OF_THE_FIRMWARE
    mov edx, 1
    service 48
    is NOT_FOUND
    lea rcx, [rip + image]
    lea rdx, [rip + loaded_image]
    lea r8, [rip + number]
    service 152
    is INVALID_PARAMETER
    mov rcx, [rip + handle]
    xor edx, edx
    lea r8, [rip + number]
    service 152
    is INVALID_PARAMETER

    # Steps 14 to 20: a file is not read into the firmware's own memory, and its position does not move.
    mov rcx, [rsi + 24]                 # the device
    lea rdx, [rip + file_system]
    lea r8, [rip + number]
    service 152
    test rax, rax
    check z
    mov rcx, [rip + number]
    lea rdx, [rip + file]
    call [rcx + 8]                      # OpenVolume
    test rax, rax
    check z
    mov rcx, [rip + file]
    lea rdx, [rip + file]
    lea r8, [rip + name]
    mov r9d, 1
    mov qword ptr [rsp + 32], 0
    call [rcx + 8]                      # Open
    test rax, rax
    check z
    mov rcx, [rip + file]
    mov qword ptr [rip + number], 16
    lea rdx, [rip + number]
    mov r8d, OF_THE_FIRMWARE
    call [rcx + 32]                     # Read
    is INVALID_PARAMETER
    mov rcx, [rip + file]
    mov qword ptr [rip + number], 16
    lea rdx, [rip + number]
    xor r8d, r8d
    call [rcx + 32]
    is INVALID_PARAMETER
    mov rcx, [rip + file]
    lea rdx, [rip + number]
    call [rcx + 48]                     # GetPosition
    test rax, rax
    check z
    cmp qword ptr [rip + number], 0
    check z

    # Steps 21 to 26: an image by its device path. It clears a vector register and its control word, and leaves by Exit.
    mov rcx, [rip + handle]
    lea rdx, [rip + loaded_image_path]
    lea r8, [rip + path]
    service 152
    test rax, rax
    check z
    xor ecx, ecx
    mov rdx, [rip + handle]
    mov r8, [rip + path]
    xor r9d, r9d
    mov qword ptr [rsp + 32], 0
    lea rax, [rip + number]
    mov [rsp + 40], rax
    service 200                         # LoadImage
    test rax, rax
    check z
    mov rax, 0x123456789abcdef0
    movq xmm6, rax
    movq xmm15, rax
    mov rcx, [rip + number]
    xor edx, edx
    xor r8d, r8d
    service 208                         # StartImage
    cmp rax, 0x42
    check z
    movq rdx, xmm6
    movq rcx, xmm15
    cmp rdx, rcx
    check z
    mov rax, 0x123456789abcdef0
    cmp rdx, rax
    check z
    stmxcsr [rip + key]
    cmp dword ptr [rip + key], 0x1f80
    check z
    xor ebx, ebx
failed:
    mov eax, ebx
    add rsp, 0x48
    pop rbp
    pop rdi
    pop rsi
    pop rbx
    ret

child:
    pxor xmm6, xmm6
    pcmpeqd xmm15, xmm15
    mov dword ptr [rip + key], 0x7f80
    ldmxcsr [rip + key]
    mov rcx, [rip + handle]
    mov edx, 0x42
    xor r8d, r8d
    xor r9d, r9d
    service 216                         # Exit
    hlt

    .balign 8
loaded_image:
    .long 0x5b1b31a1
    .short 0x9562, 0x11d2
    .byte 0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b
loaded_image_path:
    .long 0xbc62157e
    .short 0x3e33, 0x4fec
    .byte 0x99, 0x20, 0x2d, 0x3b, 0x36, 0xd7, 0x50, 0xdf
file_system:
    .long 0x964e5b22
    .short 0x6459, 0x11d2
    .byte 0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b
name:
    .string16 "kernel"
    .balign 8
services: .quad 0
handle: .quad 0
own: .quad 0
file: .quad 0
path: .quad 0
number: .quad 0
key: .quad 0
map: .fill 64
    .balign 0x1000
end:
