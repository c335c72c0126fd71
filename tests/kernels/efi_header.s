# The headers of an EFI program that is one section: all of the file, with headers as long as in memory. So a program has no linker
# and no relocations. It is included at the program's start, and defines `code` where it begins; the program defines `end`.
#
# A program that defines NX_COMPAT before is marked as compatible with NX, and its section is code. What is from its `data` on is a
# section of data.

.intel_syntax noprefix
.code64
.text

# For programs that count steps in ebx: goes to `failed`, with the number of this step, unless the condition holds.
.macro check condition
    lea ebx, [rbx + 1]                  # keeps the flags
    j\condition 1f
    jmp failed
1:
.endm

.ifdef NX_COMPAT
.set SECTIONS, 2
.set MARKS, 0x100
.set KIND, 0x60000020                   # code, to be executed and read
.else
.set SECTIONS, 1
.set MARKS, 0
.set KIND, 0xe0000020                   # code, to be executed, read and written
.set data, end
.endif

image:
    .ascii "MZ"
    .org 0x3c
    .long headers - image
headers:
    .ascii "PE\0\0"
    .short 0x8664                       # x86-64
    .short SECTIONS
    .long 0, 0, 0
    .short optional_end - optional
    .short 0x22e                        # executable, without line numbers, symbols and relocations to strip; large addresses
optional:
    .short 0x20b                        # PE32+
    .byte 0, 0
    .long end - code, 0, 0              # sizes
    .long code - image                  # entry point
    .long code - image
    .quad 0                             # base
    .long 0x1000, 0x200                 # alignment in memory and in the file
    .long 0, 0, 0, 0
    .long end - image
    .long code - image                  # headers
    .long 0
    .short 10, MARKS                    # an EFI application
    .quad 0, 0, 0, 0
    .long 0, 6
    .quad 0, 0, 0, 0, 0, 0
optional_end:
    .ascii ".text\0\0\0"
    .long data - code, code - image
    .long data - code, code - image
    .long 0, 0, 0
    .long KIND
.ifdef NX_COMPAT
    .ascii ".data\0\0\0"
    .long end - data, data - image
    .long end - data, data - image
    .long 0, 0, 0
    .long 0xc0000040                    # data, to be read and written
.endif
    .org 0x1000

code:
