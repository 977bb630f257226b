#!/usr/bin/env bash
# Makes the demo guest: a small disk that boots by BIOS into a busybox init, out of packages of the build machine.
#
#   make-image.sh OUT.qcow2
#
# In: the newest /boot/vmlinuz-*-cloud-amd64 with its modules, busybox-static, and the files beside this script (init,
# json.awk, udhcpc.sh). Out: a FAT16 disk with syslinux, the kernel and an initrd, as qcow2. No network, no root, no
# mounts. The same inputs give the same disk content.
# Debian: syslinux syslinux-common mtools dosfstools busybox-static linux-image-cloud-amd64 cpio xz-utils qemu-utils
set -euo pipefail
umask 022
export LC_ALL=C SOURCE_DATE_EPOCH=1000000000
export PATH="$PATH:/usr/sbin:/sbin"

die() { echo "make-image: $*" >&2; exit 1; }

[ $# -eq 1 ] || die "usage: make-image.sh OUT.qcow2"
out=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for tool in mkfs.vfat syslinux mcopy cpio gzip qemu-img; do
    command -v "$tool" >/dev/null || die "$tool is missing; the packages are named at the top of this script"
done

busybox=
for file in /bin/busybox /usr/bin/busybox; do
    [ -x "$file" ] && busybox=$file && break
done
[ -n "$busybox" ] || die "busybox-static is missing"

kernel=$(printf '%s\n' /boot/vmlinuz-*-cloud-amd64 | sort -V | tail -n 1)
[ -r "$kernel" ] || die "no readable /boot/vmlinuz-*-cloud-amd64; install linux-image-cloud-amd64"
version=${kernel#/boot/vmlinuz-}
modules=/lib/modules/$version
[ -r "$modules/modules.dep" ] || die "$modules/modules.dep is missing"

work=$(mktemp -d)
trap 'rm -rf "$work" "$out.part"' EXIT

# The initrd: busybox, the modules in load order, and our init.
root=$work/root
mkdir -p "$root"/{bin,dev,etc/acpi/PWRF,lib/modules,mnt,proc,run,sys,tmp}
cp "$busybox" "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp "$here/init" "$root/init"
cp "$here/json.awk" "$root/etc/json.awk"
cp "$here/udhcpc.sh" "$root/etc/udhcpc.sh"
cp "$here/poweroff.sh" "$root/etc/acpi/PWRF/00000080"
chmod 755 "$root/init" "$root/etc/udhcpc.sh" "$root/etc/acpi/PWRF/00000080"

order=$root/lib/modules/order
: >"$order"
add_module() { # path below $modules: what it needs first, itself last, each once
    local path=$1 dep name deps
    name=$(basename "${path%%.ko*}").ko
    grep -qx "$name" "$order" && return 0
    # modules.dep lists the nearest dependency first, so it is walked backwards.
    read -r -a deps <<<"$(sed -n "s|^$path:||p" "$modules/modules.dep")"
    for ((dep = ${#deps[@]} - 1; dep >= 0; dep--)); do
        add_module "${deps[dep]}"
    done
    case $path in
        *.ko) cp "$modules/$path" "$root/lib/modules/$name" ;;
        *.ko.xz) xz -dc "$modules/$path" >"$root/lib/modules/$name" ;;
        *) die "unknown module form: $path" ;;
    esac
    echo "$name" >>"$order"
}
# The disks and the network are needed; the others are nice to have and may be built in or absent.
for want in virtio_pci virtio_blk virtio_net isofs button evdev; do
    path=$(sed -n "s|^\([^:]*/$want\.ko[.xz]*\):.*|\1|p" "$modules/modules.dep" | head -n 1)
    if [ -n "$path" ]; then
        add_module "$path"
    else
        grep -q "/$want\.ko" "$modules/modules.builtin" || die "the kernel has no $want"
    fi
done
for want in nls_utf8 virtio_scsi sr_mod af_packet virtio-rng virtio_balloon; do
    path=$(sed -n "s|^\([^:]*/$want\.ko[.xz]*\):.*|\1|p" "$modules/modules.dep" | head -n 1)
    [ -z "$path" ] || add_module "$path"
done

find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$root" && find . | sort | cpio --quiet --reproducible -o -H newc -R 0:0 | gzip -9n) >"$work/initrd.gz"

cat >"$work/syslinux.cfg" <<CFG
SERIAL 0 115200
DEFAULT skyloom
PROMPT 0
TIMEOUT 0
LABEL skyloom
  KERNEL vmlinuz
  INITRD initrd.gz
  APPEND console=ttyS0 quiet panic=5 tsc=reliable no_timer_check random.trust_cpu=on
CFG
cp "$kernel" "$work/vmlinuz"
touch -d "@$SOURCE_DATE_EPOCH" "$work/vmlinuz" "$work/initrd.gz" "$work/syslinux.cfg"

# The disk: one FAT file system over all of it, no partitions.
disk=$work/disk.raw
truncate -s 64M "$disk"
mkfs.vfat --invariant -F 16 -n SKYLOOM "$disk" >/dev/null
syslinux --install "$disk"
mcopy -m -i "$disk" "$work/syslinux.cfg" "$work/vmlinuz" "$work/initrd.gz" ::
qemu-img convert -f raw -O qcow2 "$disk" "$out.part"
mv -f "$out.part" "$out"
echo "make-image: $out ($(($(stat -c %s "$out") / 1024)) KiB, kernel $version)"
