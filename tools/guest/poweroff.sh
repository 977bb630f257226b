#!/bin/sh
# Called by acpid when the power button is pressed. Nothing is mounted for writing; the pause lets the serial line drain.
export PATH=/bin
echo "skyloom-guest powering off" >/dev/console
usleep 200000
poweroff -f
