#!/bin/sh
# Makes the images of this folder with mkfs.fat (dosfstools 4.2) and mtools (4.0.32): the reader's tests need neither.
#
# Each has the same files. Some of those named "part" were deleted before the last one was written, which is therefore in pieces,
# except in FAT32, where mtools goes on behind what was written last.
# An image is kept without its zeros: offset and length of a piece in 32 bits each, little-endian, and then the piece.
set -eu
export MTOOLS_SKIP_CHECK=1 LC_ALL=C.UTF-8
folder=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# The bytes of a file: lines with a number.
contents() { awk -v lines="$1" 'BEGIN { for (line = 0; line < lines; line++) printf "%07d\n", line }'; }

fill() {
    image=$1
    put() { contents "$2" >"$work/file" && mcopy -i "$image" "$work/file" "::$1"; }
    mmd -i "$image" ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries
    put /EFI/BOOT/BOOTX64.EFI 100
    put /loader/loader.conf 3
    put "/loader/entries/6f1c0dc1a3c54a2f9ad7f8d8ed2e3d1c-6.1.0-56-cloud-amd64+3-0.conf" 20
    put "/Grüße aus Kiew ☃.txt" 1
    put /lower.txt 0
    for number in 1 2 3 4 5 6 7 8; do put "/part $number" 70; done
    for number in 2 4 6 8; do mdel -i "$image" "::/part $number"; done
    put /pieces.bin 400
    for number in 1 3 5 7; do mdel -i "$image" "::/part $number"; done
}

keep() {
    python3 - "$1" "$2" <<'PYTHON'
import re, struct, sys
image = open(sys.argv[1], "rb").read()
with open(sys.argv[2], "wb") as out:
    for piece in re.finditer(rb"(?s)[^\0](?:.{,16}?[^\0])*", image):
        out.write(struct.pack("<II", piece.start(), len(piece.group())) + piece.group())
PYTHON
}

make() {
    name=$1 kib=$2
    shift 2
    rm -f "$work/image"
    truncate -s "${kib}K" "$work/image"
    "$@" "$work/image" >/dev/null
    fill "$work/image"
    fsck.fat -n "$work/image" >/dev/null
    keep "$work/image" "$folder/$name.fat"
}

make fat12 1440 mkfs.fat -F 12 -i 12345678 -n FLOPPY
make fat12-8k 24576 mkfs.fat -F 12 -s 16 -i 12345678 -n "TWELVE 8K"
make fat16 10240 mkfs.fat -F 16 -s 1 -i 12345678
make fat16-4kn 65536 mkfs.fat -F 16 -S 4096 -s 1 -i 12345678 -n FOURK
make fat32 40960 mkfs.fat -F 32 -s 1 -i 12345678 -n ESP
make mformat 2880 mformat -f 2880 -N 12345678 -v MFORMAT -i
