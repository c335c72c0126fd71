#!/bin/sh
# Prints what Firstlight leaves in PCRs 8 and 9 of a TPM, told from what QEMU is given:
#
#   sh predict-pcrs.sh ALGORITHM KERNEL COMMAND-LINE [INITRD]
#
# ALGORITHM is sha1, sha256, sha384 or sha512, as the bank. Needs coreutils. What it does stands in docs/tpm.md.
set -eu
algorithm=$1 kernel=$2 command_line=$3 initrd=${4-}

digest() {
    "${algorithm}sum" | cut -d ' ' -f 1
}

# Bytes from hexadecimal digits.
bytes() {
    for byte in $(echo "$1" | fold -w 2); do
        printf "\\$(printf %o "0x$byte")"
    done
}

# A PCR's value after its value before and the digest that extends it.
extend() {
    { bytes "$1"; bytes "$2"; } | digest
}

# Writes standard input over bytes of the kernel's copy, from an offset on.
put() {
    dd of="$copy" bs=1 seek=$(($1)) conv=notrunc status=none
}

# The kernel without what QEMU writes into its setup header.
copy=$(mktemp)
trap 'rm -f "$copy"' EXIT
cat "$kernel" >"$copy"
for field in 0x1fa:2 0x210:1 0x218:8 0x224:2 0x228:4 0x250:8; do
    head -c "${field#*:}" /dev/zero | put "${field%:*}"
done
flags=$(od -An -tu1 -j $((0x211)) -N 1 "$kernel")
printf "\\$(printf %o $((flags & 0x7f)))" | put 0x211

zero=$(digest </dev/null | tr 0-9a-f 0)
echo "8 $(extend "$zero" "$(printf %s "$command_line" | digest)")"
pcr=$(extend "$zero" "$(digest <"$copy")")
if [ -n "$initrd" ]; then
    pcr=$(extend "$pcr" "$(digest <"$initrd")")
fi
echo "9 $pcr"
