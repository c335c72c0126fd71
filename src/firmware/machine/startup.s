# The code that a started CPU runs, at the beginning of a page below 1 MiB: real mode, CS at the page, interrupts off (Intel SDM
# volume 3, 8.4.4). It writes the registers that the AP mailbox names, stores its identifier, increments the counter and halts.
#
# The mailbox is at CODE_LEN; src/hal/startup.rs defines its layout. The caches stay off, as required while memory types
# change.

.set DONE, {CODE_LEN}
.set COUNT, {CODE_LEN} + 4
.set FEATURE_CONTROL, {CODE_LEN} + 8
.set NEXT_ID, {CODE_LEN} + 16
.set MOST_IDS, {CODE_LEN} + 18
.set WRITES, {CODE_LEN} + 20
.set WRITE_SIZE, 12                     # register, 32 bits; value, 64 bits
.set IDS, WRITES + WRITE_SIZE * {MOST_WRITES}

.set CPUID_FEATURES, 1                  # EBX: the initial APIC identifier in bits 24 to 31
.set MSR_FEATURE_CONTROL, 0x3a          # Intel SDM volume 4, table 2-2
.set FEATURE_CONTROL_LOCK, 1 << 0

.section .rodata.startup, "a"
.code16
.globl firstlight_startup_code
firstlight_startup_code:
    mov ax, cs
    mov ds, ax
    mov si, WRITES
    mov di, [COUNT]
1:
    test di, di
    jz 2f
    mov ecx, [si]
    mov eax, [si + 4]
    mov edx, [si + 8]
    wrmsr
    add si, WRITE_SIZE
    dec di
    jmp 1b
2:
    # Zero: nothing to write, and the register may not exist. Writing a locked register is a fault.
    mov ebx, [FEATURE_CONTROL]
    test ebx, ebx
    jz 3f
    mov ecx, MSR_FEATURE_CONTROL
    rdmsr
    test al, FEATURE_CONTROL_LOCK
    jnz 3f
    mov eax, ebx
    mov edx, [FEATURE_CONTROL + 4]
    wrmsr
3:
    mov eax, CPUID_FEATURES
    cpuid
    shr ebx, 24
    mov di, 1
    lock xadd [NEXT_ID], di
    cmp di, [MOST_IDS]
    jae 4f
    mov [di + IDS], bl
4:
    lock inc dword ptr [DONE]
5:
    hlt
    jmp 5b
.org {CODE_LEN}
.code64
.text
