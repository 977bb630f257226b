#!/usr/bin/python3
# Raw frames on a device.
#   frames.py send DEVICE      sends each line of hex digits of its input
#   frames.py hear DEVICE END  says "ready", then each frame in hex digits, until one has END (in hex digits) in it
import socket, sys

what, device = sys.argv[1], sys.argv[2]
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
raw.bind((device, 3))
if what == "send":
    for line in sys.stdin:
        raw.send(bytes.fromhex(line.strip()))
else:
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    print("ready", flush=True)
    while True:
        frame, (_, _, kind, *_) = raw.recvfrom(65536)
        if kind == socket.PACKET_OUTGOING:
            continue
        print(frame.hex(), flush=True)
        if bytes.fromhex(sys.argv[3]) in frame:
            break
