#!/bin/sh
# Called by udhcpc: sets the address that DHCP gave.
export PATH=/bin
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip address flush dev "$interface"
ip address add "$ip/${mask:-24}" dev "$interface"
for gateway in $router; do
    ip route add default via "$gateway" dev "$interface"
    break
done
