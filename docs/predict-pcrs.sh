#!/bin/sh
# Computes PCRs 8 and 9 of a TPM after a boot with Firstlight of a kernel that is entered directly, not by EFI, from the
# arguments of QEMU:
#
#   sh predict-pcrs.sh ALGORITHM KERNEL COMMAND-LINE [INITRD]
#
# ALGORITHM is the bank: sha1, sha256, sha384 or sha512. For a Multiboot kernel, pass KERNEL and INITRD exactly as to QEMU:
# KERNEL begins its command line, and INITRD may be several modules with arguments. Needs coreutils. docs/tpm.md explains the
# computation.
set -eu

stop() {
    echo "predict-pcrs.sh: $1" >&2
    exit 1
}

# A file that is missing would count as an empty one below.
check_file() {
    if [ ! -f "$1" ] || [ ! -r "$1" ] || [ ! -s "$1" ]; then
        stop "$1: this is no file, it is empty, or it cannot be read"
    fi
}

[ $# = 3 ] || [ $# = 4 ] || stop "usage: sh predict-pcrs.sh ALGORITHM KERNEL COMMAND-LINE [INITRD]"
algorithm=$1 kernel=$2 command_line=$3 initrd=${4-}
case $algorithm in
    sha1 | sha256 | sha384 | sha512) ;;
    *) stop "ALGORITHM is sha1, sha256, sha384 or sha512, not $algorithm" ;;
esac
check_file "$kernel"

digest() {
    "${algorithm}sum" | cut -d ' ' -f 1
}

# Bytes from hexadecimal digits.
bytes() {
    for byte in $(echo "$1" | fold -w 2); do
        printf "\\$(printf %o "0x$byte")"
    done
}

# A PCR's new value, from its old value and the digest that extends it.
extend() {
    { bytes "$1"; bytes "$2"; } | digest
}

# Writes standard input over bytes of the kernel's copy, from an offset on.
put() {
    dd of="$copy" bs=1 seek=$(($1)) conv=notrunc status=none
}

# The number of $3 bytes at offset $2 of a file.
number() {
    od -An -v -tu"$3" -j $(($2)) -N "$3" "$1" | tr -d ' '
}

# Copies $2 bytes from offset $1 of the kernel to offset $3 of its copy.
place() {
    dd if="$kernel" of="$copy" bs=64K conv=notrunc status=none iflag=skip_bytes,count_bytes oflag=seek_bytes \
        skip="$1" count="$2" seek="$3"
}

# The kernel without what QEMU writes into its setup header.
forget_loader() {
    cat "$kernel" >"$copy"
    for field in 0x1fa:2 0x210:1 0x218:8 0x224:2 0x228:4 0x250:8; do
        head -c "${field#*:}" /dev/zero | put "${field%:*}"
    done
    flags=$(number "$kernel" 0x211 1)
    printf "\\$(printf %o $((flags & 0x7f)))" | put 0x211
}

# The segments of an ELF file as they are in memory, with zeros between them.
lay_out() {
    # Offsets in the file's header, and in those of the segments (ELF-32 and ELF-64 object file formats).
    if [ "$(number "$kernel" 4 1)" = 1 ]; then
        word=4 table=28 count=44 size=42 offset=4 address=12 in_file=16 in_memory=20
    else
        word=8 table=32 count=56 size=54 offset=8 address=24 in_file=32 in_memory=40
    fi
    low='' high=0
    for pass in bounds copies; do
        i=0
        while [ $i -lt "$(number "$kernel" $count 2)" ]; do
            at=$(($(number "$kernel" $table $word) + i * $(number "$kernel" $size 2)))
            i=$((i + 1))
            [ "$(number "$kernel" $at 4)" = 1 ] || continue
            start=$(number "$kernel" $((at + address)) $word)
            end=$((start + $(number "$kernel" $((at + in_memory)) $word)))
            if [ $pass = bounds ]; then
                [ -n "$low" ] && [ "$low" -le "$start" ] || low=$start
                [ $high -ge $end ] || high=$end
            else
                place "$(number "$kernel" $((at + offset)) $word)" "$(number "$kernel" $((at + in_file)) $word)" $((start - low))
            fi
        done
    done
    truncate -s $((high - low)) "$copy"
}

# Where the Multiboot header is, if the kernel has one (Multiboot specification 0.6.96, 3.1).
find_multiboot() {
    at=0
    od -An -v -tu4 -w4 -N 8192 "$kernel" | while read -r word; do
        if [ "$word" = 464367618 ]; then
            flags=$(number "$kernel" $((at + 4)) 4) checksum=$(number "$kernel" $((at + 8)) 4)
            [ $(((word + flags + checksum) & 0xffffffff)) != 0 ] || { echo $at; break; }
        fi
        at=$((at + 4))
    done
}

# The part of the kernel that the addresses in its header describe, as it is in memory.
cut_out() {
    header=$(number "$kernel" $((multiboot + 12)) 4) load=$(number "$kernel" $((multiboot + 16)) 4)
    end=$(number "$kernel" $((multiboot + 20)) 4) zeros_end=$(number "$kernel" $((multiboot + 24)) 4)
    from=$((multiboot - (header - load)))
    [ "$end" != 0 ] || end=$((load + $(wc -c <"$kernel") - from))
    [ "$zeros_end" != 0 ] || zeros_end=$end
    place $from $((end - load)) 0
    truncate -s $((zeros_end - load)) "$copy"
}

copy=$(mktemp)
trap 'rm -f "$copy"' EXIT
multiboot=''
if [ "$(od -An -tx4 -j $((0x202)) -N 4 "$kernel" 2>/dev/null | tr -d ' ')" = 53726448 ]; then
    forget_loader
else
    multiboot=$(find_multiboot)
    if [ -n "$multiboot" ] && [ $(($(number "$kernel" $((multiboot + 4)) 4) & 0x10000)) != 0 ]; then
        cut_out
    else
        case $(od -An -tx1 -N 4 "$kernel" | tr -d ' ') in
            7f454c46)
                [ "$(wc -c <"$kernel")" -ge 64 ] || stop "$kernel is an ELF file that ends within its header"
                lay_out
                ;;
            4d5a*) stop "$kernel is an EFI program, which measures its own command line and initrd; see docs/tpm.md, EFI programs" ;;
            *) stop "$kernel is no bzImage, ELF or Multiboot kernel" ;;
        esac
    fi
fi

zero=$(digest </dev/null | tr 0-9a-f 0)
if [ -z "$multiboot" ]; then
    command_lines=$(extend "$zero" "$(printf %s "$command_line" | digest)")
    files=$(extend "$zero" "$(digest <"$copy")")
    if [ -n "$initrd" ]; then
        check_file "$initrd"
        files=$(extend "$files" "$(digest <"$initrd")")
    fi
else
    truncate -s %4096 "$copy"
    command_lines=$(extend "$zero" "$(printf '%s %s' "$kernel" "$command_line" | digest)")
    files=$(extend "$zero" "$(digest <"$copy")")
    while [ -n "$initrd" ]; do
        module=${initrd%%,*}
        check_file "${module%% *}"
        command_lines=$(extend "$command_lines" "$(printf %s "$module" | digest)")
        files=$(extend "$files" "$(digest <"${module%% *}")")
        initrd=${initrd#"$module"} initrd=${initrd#,}
    done
fi
echo "8 $command_lines"
echo "9 $files"
