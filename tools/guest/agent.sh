#!/bin/sh
# A very small guest agent, by QEMU's protocol: it answers guest-ping, and sets the password of root, which is the only user.
# It tells the digest of a new password on the console, for tests to compare.
export PATH=/bin
for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name")" = org.qemu.guest_agent.0 ] && break
done
exec 3<>"/dev/${port##*/}"

value() { sed -n "s/.*\"$1\": *\"\\{0,1\\}\\([A-Za-z0-9+/=-]*\\).*/\\1/p"; }
while :; do
    # Whoever is on the host comes and goes: then nothing is to be read.
    tr -d '\377' <&3 | while read -r line; do
        case $line in
            *'"guest-sync-delimited"'*) printf '\377{"return": %s}\n' "$(echo "$line" | value id)" >&3 ;;
            *'"guest-ping"'*) echo '{"return": {}}' >&3 ;;
            *'"guest-set-user-password"'*)
                if [ "$(echo "$line" | value username)" = root ]; then
                    digest=$(echo "$line" | value password | base64 -d | sha256sum | cut -c 1-64)
                    echo "skyloom-guest password sha256=$digest" >/dev/console
                    echo '{"return": {}}' >&3
                else
                    echo '{"error": {"class": "GenericError", "desc": "no such user"}}' >&3
                fi
                ;;
            *) echo '{"error": {"class": "CommandNotFound", "desc": "unknown"}}' >&3 ;;
        esac
    done
    usleep 100000
done
