# An EFI program that causes an exception: FAULT is 0 for an invalid instruction, 1 for code on the stack, 2 for a stack overflow, 3
# for a jump to a null pointer.

.include "efi_header.s"

    sub rsp, 0x28
.if FAULT == 0
    ud2
.elseif FAULT == 1
    mov dword ptr [rsp], 0xc3           # ret
    mov rax, rsp
    call rax
.elseif FAULT == 2
1:
    push rax
    jmp 1b
.else
    xor eax, eax
    jmp rax
.endif
    .balign 0x1000
end:
