#!/usr/bin/env bash
# Makes the rescue system: busybox, file system tools and an SSH server out of packages of the build machine.
#
#   make-rescue.sh OUT-DIR
#
# Out: OUT-DIR/rescue.qcow2 (a disk that boots by BIOS), OUT-DIR/vmlinuz and OUT-DIR/initrd.gz (the same system for
# hypervisors that load a kernel). It changes nothing on the disks that it finds. How: ../guest/lib.sh.
# Debian: syslinux syslinux-common mtools dosfstools busybox-static linux-image-cloud-amd64 cpio xz-utils qemu-utils
#         e2fsprogs util-linux dropbear-bin
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
guest=$here/../guest
. "$guest/lib.sh"

[ $# -eq 1 ] || die "usage: make-rescue.sh OUT-DIR"
need mkfs.vfat syslinux mcopy cpio gzip qemu-img e2fsck blkid dropbear dropbearkey ldd
find_kernel
work=$(mktemp -d)
trap 'rm -rf "$work" "$1"/*.part' EXIT
mkdir -p "$1"

root=$work/root
new_root
mkdir -p "$root"/etc/dropbear "$root"/var/log
cp "$here/init" "$root/init"
cp "$here/report.sh" "$root/etc/report.sh"
chmod 755 "$root/init"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:*:19000:0:99999:7:::\n' >"$root/etc/shadow"
printf 'root:x:0:\n' >"$root/etc/group"
printf '/bin/sh\n' >"$root/etc/shells"
chmod 600 "$root/etc/shadow"
need_modules virtio_pci virtio_blk virtio_net isofs ext4 vfat button evdev
like_modules nls_utf8 nls_cp437 nls_ascii xfs btrfs virtio_scsi sr_mod af_packet virtio-rng dm_mod
for program in e2fsck dumpe2fs resize2fs tune2fs blkid dropbear dropbearkey; do
    add_program "$program"
done
pack_initrd "$1/initrd.gz.part"
pack_disk "$1/initrd.gz.part" "console=ttyS0 quiet panic=5 tsc=reliable no_timer_check random.trust_cpu=on" "$1/rescue.qcow2"
cp "$kernel" "$1/vmlinuz.part"
mv -f "$1/initrd.gz.part" "$1/initrd.gz"
mv -f "$1/vmlinuz.part" "$1/vmlinuz"
echo "make-rescue: $1 ($(($(stat -c %s "$1/rescue.qcow2") / 1024)) KiB, kernel $version)"
