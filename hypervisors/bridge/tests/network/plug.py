#!/usr/bin/python3
# A guest's NIC without a guest: moves frames between a tap that is there and a new device, and says "ready".
#   plug.py TAP DEVICE MAC
import fcntl, os, select, struct, subprocess, sys

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


host, guest = tap(sys.argv[1]), tap(sys.argv[2])
subprocess.run(["ip", "link", "set", "dev", sys.argv[2], "address", sys.argv[3]], check=True)
print("ready", flush=True)
other = {host: guest, guest: host}
poll = select.poll()
for fd in other:
    poll.register(fd, select.POLLIN)
while True:
    for fd, _ in poll.poll():
        try:
            frame = os.read(fd, 65536)
        except BlockingIOError:
            continue
        except OSError:
            sys.exit("the device is gone")
        try:
            os.write(other[fd], frame)
        except OSError:
            pass  # the other end is down: as an unplugged cable
