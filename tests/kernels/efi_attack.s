# An EFI program that attacks the next boot. It prints what it finds: the statuses of GetVariable and of GetNextVariableName, the
# monotonic count and the checksum of the memory map. Then it sets a variable, and resets the machine. ATTACK is
#   0  to leave everything in memory, and reset by port 0xcf9,
#   1  to do so by ResetSystem,
#   2  to overwrite the firmware's heap, data, stack and record for a wake, the tables in the F-segment, the runtime services with
#      their variables and the page tables, and reset by a triple fault.

.include "efi_header.s"

    push rbx
    push rsi
    push rdi
    push rbp
    sub rsp, 0x48
    mov rbp, [rdx + 88]                 # RuntimeServices
    mov rbx, [rdx + 96]                 # BootServices

    lea rcx, [rip + name]
    lea rdx, [rip + vendor]
    xor r8d, r8d
    lea r9, [rip + len]
    lea rax, [rip + contents]
    mov [rsp + 32], rax
    call [rbp + 72]                     # GetVariable
    call print
    lea rcx, [rip + name_len]
    lea rdx, [rip + first_name]
    lea r8, [rip + first_vendor]
    call [rbp + 80]                     # GetNextVariableName
    call print
    lea rcx, [rip + count]
    call [rbx + 240]                    # GetNextMonotonicCount
    mov rax, [rip + count]
    call print
    lea rcx, [rip + map_len]
    lea rdx, [rip + map]
    lea r8, [rip + key]
    lea r9, [rip + step]
    lea rax, [rip + version]
    mov [rsp + 32], rax
    call [rbx + 56]                     # GetMemoryMap
    lea rcx, [rip + map]
    mov rdx, [rip + map_len]
    lea r8, [rip + checksum]
    call [rbx + 344]                    # CalculateCrc32
    mov rax, [rip + checksum]
    call print

    lea rcx, [rip + name]
    lea rdx, [rip + vendor]
    mov r8d, 7                          # for loaders and running systems, to be kept
    mov r9d, 8
    lea rax, [rip + contents]
    mov [rsp + 32], rax
    call [rbp + 88]                     # SetVariable
    call print
    mov edx, 0x3f8
    mov al, '\n'
    out dx, al

.if ATTACK == 0
    mov edx, 0xcf9
    mov al, 6
    out dx, al
.elseif ATTACK == 1
    mov ecx, 1                          # EfiResetWarm
    xor edx, edx
    xor r8d, r8d
    xor r9d, r9d
    call [rbp + 104]                    # ResetSystem
.else
.macro overwrite start, end
    mov edi, \start
    mov ecx, \end - \start
    rep stosb
.endm
    lidt [rip + no_vectors]
    cld
    mov al, 0xcc
    lea rsi, [rip + map]
1:
    cmp dword ptr [rsi], 5              # EfiRuntimeServicesCode, which has their data too
    je 2f
    add rsi, [rip + step]
    jmp 1b
2:
    mov rdi, [rsi + 8]
    mov rcx, [rsi + 24]
    shl rcx, 12
    rep stosb
    overwrite 0x40000, 0x83000
    overwrite 0x8d000, 0xa0000
    overwrite 0xf0000, 0x100000
    overwrite 0x83000, 0x8c000
    int3
.endif
3:
    hlt
    jmp 3b

# Prints RAX and a space on COM1.
print:
    mov rcx, rax
    mov r8d, 16
    lea r9, [rip + digits]
    mov edx, 0x3f8
4:
    rol rcx, 4
    mov eax, ecx
    and eax, 15
    mov al, [r9 + rax]
    out dx, al
    dec r8d
    jnz 4b
    mov al, ' '
    out dx, al
    ret

digits: .ascii "0123456789abcdef"
name:
    .string16 "Mark"
vendor:
    .ascii "sixteen bytes .."
    .balign 8
contents: .ascii "contents"
len: .quad 8
name_len: .quad 64
first_name: .fill 64
first_vendor: .fill 16
count: .quad 0
checksum: .quad 0
key: .quad 0
step: .quad 0
version: .quad 0
no_vectors: .quad 0, 0
map_len: .quad map_end - map
map: .fill 0x2000
map_end:
    .balign 0x1000
end:
