# An EFI program that draws on the display by EFI_GRAPHICS_OUTPUT_PROTOCOL, prints "drawn" and waits for ever. It returns the number
# of the step that failed.
#
# EDID is 1 on a display that has one, else 0.

.include "efi_header.s"

    jmp start

# Transfers pixels: kind, source, destination, width and height.
.macro blt kind, from_x, from_y, to_x, to_y, width, height
    mov rcx, rsi
    lea rdx, [rip + pixels]
    mov r8d, \kind
    mov r9d, \from_x
    mov qword ptr [rsp + 0x20], \from_y
    mov qword ptr [rsp + 0x28], \to_x
    mov qword ptr [rsp + 0x30], \to_y
    mov qword ptr [rsp + 0x38], \width
    mov qword ptr [rsp + 0x40], \height
    mov qword ptr [rsp + 0x48], 0       # the rows of the buffer have no gaps
    call [rsi + 16]                     # Blt
    test rax, rax
    check z
.endm

# Finds an interface on the display's handle, and has it in `rax`.
.macro on_display guid
    mov rcx, [rip + handle]
    lea rdx, [rip + \guid]
    lea r8, [rip + interface]
    mov rax, [rdi + 96]                 # BootServices
    call [rax + 152]                    # HandleProtocol
    test rax, rax
    check z
    mov rax, [rip + interface]
.endm

start:
    push rbx
    push rsi
    push rdi
    sub rsp, 0x50
    mov rdi, rdx
    xor ebx, ebx

    # Steps 1 to 3: the handle has the protocol and a path, which ends with the address of an output.
    mov ecx, 2                          # ByProtocol
    lea rdx, [rip + graphics]
    xor r8d, r8d
    lea r9, [rip + size]
    lea rax, [rip + handle]
    mov [rsp + 0x20], rax
    mov rax, [rdi + 96]
    call [rax + 176]                    # LocateHandle
    test rax, rax
    check z
    on_display device_path
    cmp byte ptr [rax], 3               # not a node for messages or media
    check b
    on_display graphics
    mov rsi, rax

    # Steps 5 to 8: there is the mode 0, and no mode 1.
    mov rcx, rsi
    xor edx, edx
    lea r8, [rip + size]
    lea r9, [rip + interface]
    call [rsi]                          # QueryMode
    test rax, rax
    check z
    mov rax, [rip + interface]
    cmp dword ptr [rax + 4], 1024
    check z
    mov rcx, rsi
    mov edx, 1
    call [rsi + 8]                      # SetMode
    mov rdx, 0x8000000000000003
    cmp rax, rdx
    check z
    # The screen is black after this.
    mov dword ptr [rip + pixels], 0x00ffffff
    blt 0, 0, 0, 900, 700, 100, 50
    mov rcx, rsi
    xor edx, edx
    call [rsi + 8]
    test rax, rax
    check z

    # A red rectangle, a copy of it, four pixels from a buffer, and a copy of two of these by a buffer.
    mov dword ptr [rip + pixels], 0x00c80a14
    blt 0, 0, 0, 10, 20, 30, 40
    blt 3, 10, 20, 100, 100, 30, 40
    mov dword ptr [rip + pixels], 0x00010203
    mov dword ptr [rip + pixels + 4], 0x00040506
    mov dword ptr [rip + pixels + 8], 0x00070809
    mov dword ptr [rip + pixels + 12], 0x000a0b0c
    blt 2, 0, 0, 1022, 766, 2, 2
    blt 1, 1022, 767, 0, 0, 2, 1
    blt 2, 0, 0, 0, 0, 2, 1
.if EDID
    on_display discovered
    cmp dword ptr [rax], 128
    check z
    mov rax, [rax + 8]
    mov rdx, 0x00ffffffffffff00
    cmp [rax], rdx
    check z
    on_display active
.else
    mov rcx, [rip + handle]
    lea rdx, [rip + discovered]
    lea r8, [rip + interface]
    mov rax, [rdi + 96]
    call [rax + 152]
    mov rdx, 0x8000000000000003
    cmp rax, rdx
    check z
.endif
    mov rcx, [rdi + 64]                 # ConOut
    lea rdx, [rip + drawn]
    call [rcx + 8]                      # OutputString
wait:
    pause
    jmp wait
failed:
    mov eax, ebx
    add rsp, 0x50
    pop rdi
    pop rsi
    pop rbx
    ret

    .balign 8
graphics:
    .long 0x9042a9de
    .short 0x23dc, 0x4a38
    .byte 0x96, 0xfb, 0x7a, 0xde, 0xd0, 0x80, 0x51, 0x6a
device_path:
    .long 0x09576e91
    .short 0x6d3f, 0x11d2
    .byte 0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b
discovered:
    .long 0x1c0c34f6
    .short 0xd380, 0x41fa
    .byte 0xa0, 0x49, 0x8a, 0xd0, 0x6c, 0x1a, 0x66, 0xaa
active:
    .long 0xbd8c1056
    .short 0x9f36, 0x44ec
    .byte 0x92, 0xa8, 0xa6, 0x33, 0x7f, 0x81, 0x79, 0x86
drawn:
    .string16 "drawn\r\n"

    .balign 8
interface: .quad 0
handle: .quad 0
size: .quad 8
pixels: .fill 16
    .balign 0x1000
end:
