# Shared by our guests' init scripts, sourced: the config drive (NoCloud) and the network that it describes.

# A value of a flattened JSON file (path TAB value), cut to harmless characters.
get() { awk -F '\t' -v key="$2" '$1 == key { print $2; exit }' "$1" | tr -cd 'A-Za-z0-9._:/$-'; }

# The disk or CD whose ISO 9660 volume is named cidata; where there are two, the last. CDs may show up late.
find_config_drive() {
    for try in 1 2 3 4 5; do
        found=
        for dev in /dev/vd? /dev/sr? /dev/sd?; do
            [ -b "$dev" ] || continue
            label=$(dd if="$dev" bs=1 skip=32769 count=71 2>/dev/null | tr -d '\0')
            case $label in
                CD001*[Cc][Ii][Dd][Aa][Tt][Aa]*) found=$dev ;;
            esac
        done
        [ -z "$found" ] || { echo "$found"; return 0; }
        usleep 200000
    done
    return 1
}

nic_of_mac() {
    for nic in /sys/class/net/*; do
        [ "$(cat "$nic/address")" = "$1" ] && basename "$nic" && return 0
    done
    return 1
}

# Brings up what /run/network (flattened) says; without a word there, every NIC by DHCP.
network_up() {
    ip link set lo up
    for entry in $(sed -n 's/^ethernets\.\([^.]*\)\..*/\1/p' /run/network | uniq); do
        at=ethernets.$entry
        mac=$(get /run/network "$at.match.macaddress" | tr 'A-F' 'a-f')
        nic=$(nic_of_mac "$mac") || continue
        ip link set "$nic" up
        wanted=$(get /run/network "$at.addresses.0")
        if [ -n "$wanted" ]; then
            ip address add "$wanted" dev "$nic"
            gateway=$(get /run/network "$at.routes.0.via")
            [ -z "$gateway" ] || ip route add default via "$gateway" dev "$nic"
        else
            udhcpc -i "$nic" -s /etc/udhcpc.sh -n -q -t 5 -T 1 >/dev/null 2>&1
        fi
    done
    if ! grep -q '^ethernets\.' /run/network; then
        for nic in /sys/class/net/*; do
            nic=$(basename "$nic")
            [ "$nic" != lo ] || continue
            ip link set "$nic" up
            udhcpc -i "$nic" -s /etc/udhcpc.sh -n -q -t 5 -T 1 >/dev/null 2>&1
        done
    fi
}

first_address() {
    found=$(ip -o address show scope global | awk '{ sub("/.*", "", $4); print $4; exit }')
    echo "${found:-none}"
}
