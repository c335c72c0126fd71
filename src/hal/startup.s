# What a CPU that is started runs, at the beginning of a page below 1 MiB: real mode, CS at the page, interrupts off (Intel
# SDM volume 3, 8.4.4). It writes the registers that the orders name, counts itself and halts.
#
# The orders stand at STARTUP_ORDERS; src/cpus/startup.rs lays them out. The caches stay off, as memory types want it
# while they change.

.set DONE, {STARTUP_ORDERS}
.set COUNT, {STARTUP_ORDERS} + 4
.set FEATURE_CONTROL, {STARTUP_ORDERS} + 8
.set WRITES, {STARTUP_ORDERS} + 16
.set WRITE_SIZE, 12                     # register, 32 bits; value, 64 bits

.set MSR_FEATURE_CONTROL, 0x3a          # Intel SDM volume 4, table 2-2
.set FEATURE_CONTROL_LOCK, 1 << 0

.section .rodata.startup, "a"
.code16
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
    # A write to a locked register is a fault.
    mov ecx, MSR_FEATURE_CONTROL
    rdmsr
    test al, FEATURE_CONTROL_LOCK
    jnz 3f
    mov eax, [FEATURE_CONTROL]
    mov edx, [FEATURE_CONTROL + 4]
    wrmsr
3:
    lock inc dword ptr [DONE]
4:
    hlt
    jmp 4b
.org {STARTUP_ORDERS}
.code64
.text
