# Shared by the scripts that make bootable images out of packages of the build machine. Sourced, not run.
#
# A script sets `root` (the initrd's folder), calls what it needs, and packs. No network, no root, no mounts; the same
# inputs give the same content.
umask 022
export LC_ALL=C SOURCE_DATE_EPOCH=1000000000
export PATH="$PATH:/usr/sbin:/sbin"

die() { echo "$(basename "$0"): $*" >&2; exit 1; }

need() { # tools
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || die "$tool is missing; the packages are named at the top of this script"
    done
}

find_kernel() { # sets kernel, version, modules
    kernel=$(printf '%s\n' /boot/vmlinuz-*-cloud-amd64 | sort -V | tail -n 1)
    [ -r "$kernel" ] || die "no readable /boot/vmlinuz-*-cloud-amd64; install linux-image-cloud-amd64"
    version=${kernel#/boot/vmlinuz-}
    modules=/lib/modules/$version
    [ -r "$modules/modules.dep" ] || die "$modules/modules.dep is missing"
}

new_root() { # the folders, busybox and the helpers that every initrd has
    local busybox= file
    for file in /bin/busybox /usr/bin/busybox; do
        [ -x "$file" ] && busybox=$file && break
    done
    [ -n "$busybox" ] || die "busybox-static is missing"
    mkdir -p "$root"/{bin,dev,etc/acpi/PWRF,lib/modules,mnt,proc,root,run,sys,tmp}
    cp "$busybox" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    cp "$guest/json.awk" "$root/etc/json.awk"
    cp "$guest/config-drive.sh" "$root/etc/config-drive.sh"
    cp "$guest/udhcpc.sh" "$root/etc/udhcpc.sh"
    cp "$guest/poweroff.sh" "$root/etc/acpi/PWRF/00000080"
    chmod 755 "$root/etc/udhcpc.sh" "$root/etc/acpi/PWRF/00000080"
    order=$root/lib/modules/order
    : >"$order"
}

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

module_path() { sed -n "s|^\([^:]*/$1\.ko[.xz]*\):.*|\1|p" "$modules/modules.dep" | head -n 1; }

need_modules() { # names; each is there or built in
    local want path
    for want in "$@"; do
        path=$(module_path "$want")
        if [ -n "$path" ]; then
            add_module "$path"
        else
            grep -q "/$want\.ko" "$modules/modules.builtin" || die "the kernel has no $want"
        fi
    done
}

like_modules() { # names; nice to have, may be built in or absent
    local want path
    for want in "$@"; do
        path=$(module_path "$want")
        [ -z "$path" ] || add_module "$path"
    done
}

add_program() { # a program of the build machine with the libraries that it loads
    local program file
    program=$(command -v "$1") || die "$1 is missing; the packages are named at the top of this script"
    cp -L "$program" "$root/bin/$(basename "$1")"
    for file in $(ldd "$program" | grep -o '/[^ ]*'); do
        mkdir -p "$root$(dirname "$file")"
        [ -e "$root$file" ] || cp -L "$file" "$root$file"
    done
}

pack_initrd() { # OUT
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    (cd "$root" && find . | sort | cpio --quiet --reproducible -o -H newc -R 0:0 | gzip -9n) >"$1"
}

pack_disk() { # INITRD KERNEL-ARGUMENTS OUT.qcow2: one FAT file system over all of a disk, no partitions
    local disk=$work/disk.raw
    cat >"$work/syslinux.cfg" <<CFG
SERIAL 0 115200
DEFAULT skyloom
PROMPT 0
TIMEOUT 0
LABEL skyloom
  KERNEL vmlinuz
  INITRD initrd.gz
  APPEND $2
CFG
    cp "$kernel" "$work/vmlinuz"
    [ "$1" -ef "$work/initrd.gz" ] || cp "$1" "$work/initrd.gz"
    touch -d "@$SOURCE_DATE_EPOCH" "$work/vmlinuz" "$work/initrd.gz" "$work/syslinux.cfg"
    truncate -s 64M "$disk"
    mkfs.vfat --invariant -F 16 -n SKYLOOM "$disk" >/dev/null
    syslinux --install "$disk"
    mcopy -m -i "$disk" "$work/syslinux.cfg" "$work/vmlinuz" "$work/initrd.gz" ::
    qemu-img convert -f raw -O qcow2 "$disk" "$3.part"
    mv -f "$3.part" "$3"
}
