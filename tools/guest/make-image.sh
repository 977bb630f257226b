#!/usr/bin/env bash
# Makes the demo guest: a small disk that boots by BIOS into a busybox init, out of packages of the build machine.
#
#   make-image.sh OUT.qcow2
#
# In: the newest /boot/vmlinuz-*-cloud-amd64 with its modules, busybox-static, and the files beside this script. Out: a
# FAT16 disk with syslinux, the kernel and an initrd, as qcow2. How: lib.sh.
# Debian: syslinux syslinux-common mtools dosfstools busybox-static linux-image-cloud-amd64 cpio xz-utils qemu-utils
set -euo pipefail
guest=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$guest/lib.sh"

[ $# -eq 1 ] || die "usage: make-image.sh OUT.qcow2"
need mkfs.vfat syslinux mcopy cpio gzip qemu-img
find_kernel
work=$(mktemp -d)
trap 'rm -rf "$work" "$1.part"' EXIT

root=$work/root
new_root
cp "$guest/init" "$root/init"
cp "$guest/agent.sh" "$root/etc/agent.sh"
chmod 755 "$root/init" "$root/etc/agent.sh"
need_modules virtio_pci virtio_blk virtio_net isofs button evdev
like_modules virtio_console nls_utf8 virtio_scsi sr_mod af_packet virtio-rng virtio_balloon
pack_initrd "$work/initrd.gz"
pack_disk "$work/initrd.gz" "console=ttyS0 quiet panic=5 tsc=reliable no_timer_check random.trust_cpu=on" "$1"
echo "make-image: $1 ($(($(stat -c %s "$1") / 1024)) KiB, kernel $version)"
