# An EFI program that is marked as compatible with NX and does what that forbids: FAULT is 0 for a write to its code, 1 for one to its
# headers, 2 for a jump to its data.

.set NX_COMPAT, 1
.include "efi_header.s"

    sub rsp, 0x28
.if FAULT == 0
    mov byte ptr [rip + code], 0x90
.elseif FAULT == 1
    mov byte ptr [rip + image], 0
.else
    lea rax, [rip + data]
    jmp rax
.endif
    ud2
    .balign 0x1000
data:
    ret
    .balign 0x1000
end:
