# An EFI program that ends boot services and prints a line on COM1. It stops then if RETURNS is 0, returns if it
# is 1, and causes an exception if it is 2.

.include "efi_header.s"

    push rbx
    sub rsp, 0x30
    mov rbx, [rdx + 96]                 # BootServices
    mov [rip + handle], rcx

    lea rcx, [rip + size]
    lea rdx, [rip + map]
    lea r8, [rip + key]
    lea r9, [rip + descriptor]
    lea rax, [rip + descriptor]
    mov [rsp + 32], rax
    call [rbx + 56]                     # GetMemoryMap
    test rax, rax
    jnz 2f
    mov rcx, [rip + handle]
    mov rdx, [rip + key]
    call [rbx + 232]                    # ExitBootServices
    test rax, rax
    jnz 2f

    lea rsi, [rip + text]
    mov edx, 0x3f8
1:
    lodsb
    out dx, al
    test al, al
    jnz 1b
.if RETURNS == 0
    cli
    hlt
.elseif RETURNS == 2
    ud2
.endif
2:
    add rsp, 0x30
    pop rbx
    ret

text: .asciz "ended\r\n"
    .balign 8
handle: .quad 0
key: .quad 0
descriptor: .quad 0
size: .quad map_end - map
map: .fill 0x2000
map_end:
    .balign 0x1000
end:
