#!/bin/sh -e
# Completes the system in the folder $1, which mmdebstrap has unpacked, and makes its file system. In the environment are FOLDER, where
# the file system (a file of the right size), the kernel and the initrd belong, ROOT, the file system's identifier, and SUITE.
system=$1

cat > "$system/etc/fstab" <<END
UUID=$ROOT / ext4 errors=remount-ro 0 1
LABEL=FIRSTLIGHT /boot/efi vfat umask=0077,x-systemd.device-timeout=1h 0 2
END
cat > "$system/etc/default/grub" <<END
GRUB_TIMEOUT=1
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX="console=ttyS0 no_timer_check"
GRUB_DISABLE_OS_PROBER=true
END
# The first program of one boot, in which Debian's own programs install its boot loader.
cat > "$system/install" <<END
#!/bin/sh
mount -o remount,rw / && mount /boot/efi && grub-install --target=x86_64-efi --no-nvram --force-extra-removable && update-grub &&
    rm /install && echo The boot loader is installed.
umount /boot/efi
mount -o remount,ro /
poweroff -f
END
chmod 755 "$system/install"
mkdir -p "$system/boot/efi"
echo debian > "$system/etc/hostname"
chroot "$system" passwd --quiet --delete root

# Another kernel, for the guest to install without a network.
chroot "$system" apt-get clean
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get install --yes --quiet --download-only --target-release "$SUITE-backports" linux-image-cloud-amd64

cp "$system"/boot/vmlinuz-* "$FOLDER/kernel"
cp "$system"/boot/initrd.img-* "$FOLDER/initrd"
# Without what is mounted below it.
mkdir "$FOLDER/system"
mount --bind "$system" "$FOLDER/system"
mke2fs -q -t ext4 -O ^metadata_csum_seed -U "$ROOT" -d "$FOLDER/system" "$FOLDER/file-system" || failed=1
umount "$FOLDER/system"
exit "${failed:-0}"
