# Sourced by init: what is to be seen on the server's own disks. Everything is opened and mounted read-only, journals are
# not replayed, and what a disk says about itself is cut to harmless characters.

clean() { tr -cd 'A-Za-z0-9 ._:/=@,+()-' | cut -c 1-120; }

finding() { # pairs: name value; a name that ends in # has a number
    local line= name value
    while [ $# -ge 2 ]; do
        name=$1
        value=$(printf %s "$2" | clean)
        shift 2
        case $name in
            *#) line="$line,\"${name%#}\":${value:-0}" ;;
            *) line="$line,\"$name\":\"$value\"" ;;
        esac
    done
    echo "skyloom-rescue finding {${line#,}}"
    echo $(($(cat /run/findings) + 1)) >/run/findings
}

percent() { # used, all
    [ "${2:-0}" -gt 0 ] && echo $(($1 * 100 / $2)) || echo 0
}

# What a mounted system says of itself.
look_inside() { # disk, device, folder
    local name used all line source place
    used=$(df -P "$3" 2>/dev/null | awk 'NR == 2 { print $3 }')
    all=$(df -P "$3" 2>/dev/null | awk 'NR == 2 { print $2 }')
    finding kind usage disk "$1" device "$2" used_percent# "$(percent "${used:-0}" "${all:-0}")" size_kib# "${all:-0}"
    used=$(df -P -i "$3" 2>/dev/null | awk 'NR == 2 { print $3 }')
    all=$(df -P -i "$3" 2>/dev/null | awk 'NR == 2 { print $2 }')
    [ "${all:-0}" -le 0 ] || finding kind inodes disk "$1" device "$2" used_percent# "$(percent "$used" "$all")"
    if [ -f "$3/etc/os-release" ] && [ ! -L "$3/etc" ]; then
        name=$(sed -n 's/^PRETTY_NAME=//p' "$3/etc/os-release" 2>/dev/null | head -n 1)
        finding kind system disk "$1" device "$2" name "$name" kernels# "$(ls "$3"/boot/vmlinuz-* 2>/dev/null | wc -l)"
    fi
    [ -f "$3/etc/fstab" ] || return 0
    head -n 64 "$3/etc/fstab" | while read -r source place _; do
        case $source in
            '' | '#'*) continue ;;
            UUID=* | LABEL=* | PARTUUID=*)
                findfs "$source" >/dev/null 2>&1 || blkid -t "$source" >/dev/null 2>&1 ||
                    finding kind fstab disk "$1" device "$2" source "$source" place "$place" problem missing ;;
            /dev/*)
                [ -b "$source" ] || finding kind fstab disk "$1" device "$2" source "$source" place "$place" problem missing ;;
        esac
    done
}

# One block device: its file system, whether it is whole, what is in it.
look_at() { # disk, device
    local type label uuid state
    type=$(blkid -p -s TYPE -o value "/dev/$2" 2>/dev/null)
    [ -n "$type" ] || return 0
    label=$(blkid -p -s LABEL -o value "/dev/$2" 2>/dev/null)
    uuid=$(blkid -p -s UUID -o value "/dev/$2" 2>/dev/null)
    state=unknown
    case $type in
        ext2 | ext3 | ext4)
            # Only looks: -n answers no to everything.
            timeout 60 e2fsck -n "/dev/$2" >/run/fsck 2>&1
            case $? in
                0) state=clean ;;
                124 | 143) state=unknown ;;
                *) state=errors ;;
            esac ;;
    esac
    finding kind filesystem disk "$1" device "$2" type "$type" label "$label" uuid "$uuid" state "$state"
    case $type in
        ext2 | ext3 | ext4) mount -t ext4 -o ro,noload,nosuid,nodev,noexec "/dev/$2" /mnt 2>/dev/null || return 0 ;;
        xfs) mount -t xfs -o ro,norecovery,nosuid,nodev,noexec "/dev/$2" /mnt 2>/dev/null || return 0 ;;
        vfat | btrfs) mount -t "$type" -o ro,nosuid,nodev,noexec "/dev/$2" /mnt 2>/dev/null || return 0 ;;
        *) return 0 ;;
    esac
    look_inside "$1" "$2" /mnt
    umount /mnt
}

report() { # the rescue system's own config drive
    local path name disk part parts
    echo 0 >/run/findings
    for path in /sys/block/vd? /sys/block/sd?; do
        [ -e "$path" ] || continue
        name=$(basename "$path")
        disk=$(cat "$path/serial" 2>/dev/null)
        case $disk in
            rescue | rescue-seed | seed) continue ;;
        esac
        [ "/dev/$name" != "$1" ] || continue
        finding kind disk disk "$disk" device "$name" size_bytes# "$(($(cat "$path/size") * 512))"
        parts=0
        for part in "$path/$name"[0-9]*; do
            [ -e "$part" ] || continue
            parts=1
            look_at "$disk" "$(basename "$part")"
        done
        [ $parts = 1 ] || look_at "$disk" "$name"
    done
}
