#!/usr/bin/env python3
"""Makes the golden disks beside it: what sfdisk, mkfs.vfat, mformat, xorriso and grub-mkrescue write where partitions are
described, and what sfdisk says of it.

Needs Debian's packages fdisk, dosfstools, mtools, xorriso, grub-common, grub-pc-bin. `gpt-4096` is from the disk `f-4kn` of
`cargo xtask disks`, the only argument.
"""

import os
import re
import subprocess
import sys
import tempfile

KIB = 1024
OUT = os.path.dirname(os.path.abspath(__file__))


def run(command, text=None):
    return subprocess.run(command, shell=True, input=text, text=True, capture_output=True, check=True).stdout


def write(name, path, block, ranges, dump=""):
    size = os.path.getsize(path)
    lines = [f"disk {block} {size // block}"]
    if signature := re.search(r"label-id: (0x\S+)", dump):
        lines.append(f"signature {signature[1]}")
    for number, fields in re.findall(r"(\d+) : (start=.*)", dump):
        fields = [field for field in fields.replace(" ", "").split(",") if re.match("start|size|type|uuid", field)]
        lines.append(f"partition {number} {','.join(fields)}")
    with open(path, "rb") as file:
        for start, end in ranges:
            file.seek(start)
            part = file.read(min(end, size) - start)
            for at in range(0, len(part), 32):
                if any(part[at : at + 32]):
                    lines.append(f"{start + at:x} {part[at:at + 32].hex()}")
    with open(f"{OUT}/{name}", "w") as file:
        file.write("\n".join(lines) + "\n")


def partitioned(name, ranges, script):
    run(f"truncate -s 64M {name}; sfdisk -q {name}", script)
    write(name, name, 512, ranges, run(f"sfdisk -d {name}"))


def guid(number):
    return f"0000000{number}-1111-2222-3333-444444444444"


def main(disk_4096):
    end = 64 * KIB * KIB
    script = f"label: gpt\nlabel-id: {guid(9)}\nsize=32M,type=U,uuid={guid(1)}\nsize=8M,type=L,uuid={guid(2)}\n"
    script += f"size=8M,type=bc13c2ff-59e6-4262-a352-b275fd6f7172,uuid={guid(3)}\n7: size=4M,type=L,uuid={guid(4)}\n"
    partitioned("gpt", [(0, 20 * KIB), (end - 20 * KIB, end)], script)
    script = "label: dos\nlabel-id: 0x12345678\nsize=32M,type=ef,bootable\nsize=8M,type=83\n4: size=4M,type=c\n"
    partitioned("mbr", [(0, 512)], script)
    script = "label: dos\nlabel-id: 0xcafe0001\nsize=8M,type=83\nsize=50M,type=5\n"
    partitioned("logical", [(0, end)], script + "5: size=16M,type=ef\n6: size=8M,type=83\n7: size=4M,type=c\n")
    size = os.path.getsize(disk_4096)
    write("gpt-4096", disk_4096, 4096, [(0, 32 * KIB), (size - 32 * KIB, size)])
    run("truncate -s 4M fat; mkfs.vfat -i 12345678 fat")
    write("fat-mkfs", "fat", 512, [(0, 512)])
    run("truncate -s 2880K diskette; mformat -i diskette -f 2880 ::")
    write("fat-mformat", "diskette", 512, [(0, 512)])
    # A CD with an image for a BIOS and one for UEFI.
    run("mkdir cd; truncate -s 1440K cd/bios.img; cp fat cd/efi.img")
    images = "-b bios.img -no-emul-boot -boot-load-size 4 -eltorito-alt-boot -e efi.img -no-emul-boot"
    run(f"xorriso -as mkisofs -o cd.iso {images} cd; grub-mkrescue -o cd-grub.iso cd")
    for name, block in [("cd", 2048), ("cd-grub", 512)]:
        path = f"{name}.iso"
        table = run(f"xorriso -indev {path} -report_el_torito plain")
        catalog = int(re.search(r"El Torito catalog  : (\d+)", table)[1]) * 2048
        ranges = [(0x8000, 0x8020), (0x8800, 0x8860), (0x9000, 0x9020), (catalog, catalog + 256)]
        dump = ""
        if name == "cd-grub":
            size = os.path.getsize(path)
            ranges += [(440, 1024), (20 * 512, 20 * 512 + 176 * 128), (size - 46 * 512, size)]
            dump = run(f"sfdisk -d {path}")
        write(name, path, block, ranges, dump)


with tempfile.TemporaryDirectory() as folder:
    disk = os.path.abspath(sys.argv[1])
    os.chdir(folder)
    main(disk)
