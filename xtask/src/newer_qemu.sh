#!/bin/sh
# Starts the QEMU that `cargo xtask` has unpacked beside this file, with its own modules and data before installed ones.
system=${0%/*}
libraries=usr/lib/x86_64-linux-gnu
export QEMU_MODULE_DIR="$system/$libraries/qemu"
export LD_LIBRARY_PATH="$system/$libraries:$system/lib/x86_64-linux-gnu"
exec "$system/usr/bin/qemu-system-x86_64" \
    -L "$system/usr/share/qemu" -L "$system/usr/share/seabios" -L "$system/usr/lib/ipxe/qemu" \
    -L /usr/share/qemu -L /usr/share/seabios -L /usr/lib/ipxe/qemu "$@"
