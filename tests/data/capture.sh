#!/bin/sh
# Captures the fw_cfg items that the golden tests run on: boots Linux under SeaBIOS on each machine below, reads the
# items there through qemu_fw_cfg.ko, and stores them in a folder per machine beside this script (see README.md).
#
# SeaBIOS, not this project's firmware, programs the chipset before the guest looks: QEMU builds the ACPI tables from
# the chipset's registers, and the captured bytes must not depend on the code they test.
#
# usage: capture.sh VMLINUZ QEMU_FW_CFG_KO
#   VMLINUZ         a kernel with the 8250 console built in, such as Debian's linux-image-cloud-amd64
#   QEMU_FW_CFG_KO  that kernel's drivers/firmware/qemu_fw_cfg.ko, not compressed
# needs: qemu-system-x86, seabios, busybox-static, perl
set -eu

kernel=$(realpath "$1")
module=$(realpath "$2")
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/root/bin" "$work/root/proc" "$work/root/sys" "$work/root/dev" "$work/root/items"
cp "$(command -v busybox)" "$work/root/bin/busybox"
cp "$module" "$work/root/qemu_fw_cfg.ko"
cat >"$work/root/init" <<'INIT'
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
insmod /qemu_fw_cfg.ko
cd /sys/firmware/qemu_fw_cfg/by_name
for item in etc/table-loader etc/acpi/rsdp etc/acpi/tables etc/e820 etc/smbios/smbios-anchor etc/smbios/smbios-tables \
    etc/vmgenid_guid etc/vmgenid_addr etc/acpi/nvdimm-mem; do
    if [ -e "$item/raw" ]; then
        name=$(basename "$item")
        cat "$item/raw" >"/items/$name"
        echo "$item $(cat "$item/size")" >>/items/sizes
    fi
done
echo
echo CAPTURE-BEGIN
tar -C /items -cz . | base64
echo CAPTURE-END
poweroff -f
INIT
chmod +x "$work/root/init"
(cd "$work/root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/initrd"

# capture FOLDER QEMU-ARGUMENTS...
capture() {
    folder=$1
    shift
    timeout 120 qemu-system-x86_64 "$@" -accel tcg -display none -monitor none -serial stdio -no-reboot \
        -kernel "$kernel" -initrd "$work/initrd" -append "console=ttyS0 quiet loglevel=0 panic=-1" </dev/null >"$work/log"
    rm -rf "$work/items" && mkdir "$work/items"
    tr -d '\r' <"$work/log" | sed -n '/^CAPTURE-BEGIN$/,/^CAPTURE-END$/p' | grep -v '^CAPTURE-' |
        base64 -d | tar -C "$work/items" -xz
    rm -rf "${here:?}/$folder" && mkdir "$here/$folder"
    while read -r item size; do
        name=$(basename "$item")
        # Files are stored without their trailing zeros, which are most of the tables; `sizes` has the true lengths.
        LC_ALL=C perl -0777 -pe 's/\0+\z//' "$work/items/$name" >"$here/$folder/$name"
        # This one is zero until a firmware writes it, as SeaBIOS just did.
        [ "$item" != etc/vmgenid_addr ] || : >"$here/$folder/$name"
        echo "$item $size" >>"$here/$folder/sizes"
    done <"$work/items/sizes"
    echo "$folder: $(wc -l <"$here/$folder/sizes") items"
}

capture q35 -M q35
capture pc -M pc
capture q35-vmgenid -M q35,nvdimm=on -m 512M,slots=2,maxmem=1G \
    -object memory-backend-ram,id=nv,size=128M -device nvdimm,memdev=nv \
    -device vmgenid,guid=12345678-9abc-def0-1234-56789abcdef0
capture q35-6g -M q35 -m 6G
capture pc-128m -M pc -m 128M
capture q35-smbios3 -M q35,smbios-entry-point-type=64
capture q35-host-bios -M q35,smbios-entry-point-type=64 -smp 4,sockets=4 \
    -smbios type=0,vendor=Host,version=1,date=01/02/2003,release=4.5 -smbios type=11,value=one,value=two
capture microvm -M microvm,acpi=on
