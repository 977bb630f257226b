#!/usr/bin/python3
# udhcpc's script: writes what it was told to the file that udhcpc's environment names.
import json, os, sys

if sys.argv[1] in ("bound", "renew", "nak"):
    with open(os.environ["LEASE"], "w") as out:
        json.dump(dict(os.environ, event=sys.argv[1]), out)
