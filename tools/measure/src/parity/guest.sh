# Prints what a guest sees of its machine, for `cargo xtask parity`: sections that each begin with a line
# "firstlight-parity: NAME". Tables are in hexadecimal digits. Run by /init (firstlight.mode=script).

section() {
    echo "firstlight-parity: $1"
}

# The kernel takes a second to select its clock source, and logs it.
sources=/sys/devices/system/clocksource/clocksource0
tries=50
while [ "$(cat $sources/current_clocksource)" = tsc-early ] && [ $tries -gt 0 ]; do
    sleep 0.1
    tries=$((tries - 1))
done

section kernel-log
dmesg -r

section e820
for number in $(ls /sys/firmware/memmap | sort -n); do
    entry=/sys/firmware/memmap/$number
    echo "$(cat "$entry/start")-$(cat "$entry/end") : $(cat "$entry/type")"
done

# The root pointer is only in memory; the kernel's log says where.
dmesg | sed -n 's/.*ACPI: RSDP \(0x[0-9A-F]*\) \([0-9A-F]*\) .*/\1 0x\2/p' >/tmp/root
read -r address length </tmp/root
section "acpi RSDP"
dd if=/dev/mem bs=1 skip=$((address)) count=$((length)) 2>/dev/null | xxd -p
for table in /sys/firmware/acpi/tables/*; do
    if [ -f "$table" ]; then
        section "acpi ${table##*/}"
        xxd -p "$table"
    fi
done

section dmidecode
dmidecode 2>&1

section lspci
lspci -vv -n 2>/dev/null

section iomem
cat /proc/iomem

section ioports
cat /proc/ioports

section interrupts
cat /proc/interrupts

section mtrr
cat /proc/mtrr 2>&1

section cpu
grep -v -e 'cpu MHz' -e bogomips /proc/cpuinfo

section clock-sources
cat $sources/available_clocksource $sources/current_clocksource
for device in /sys/devices/system/clockevents/*/current_device; do
    echo "$device $(cat "$device")"
done

section sleep-states
cat /sys/power/state /sys/power/mem_sleep

section end
