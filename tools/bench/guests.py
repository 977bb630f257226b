#!/usr/bin/env python3
"""Real guests through the whole control plane, as Markdown: how long a create, a stop and a start take from the answer of the API to the
end of the task, how much of that the host's steps take, and what the process weighs with many guests.

    guests.py SKYLOOM GUEST.qcow2 [TURNS [MANY]]        20 turns, 50 guests at the end

One process (`skyloom dev`): API, engine, agent and SQLite with real fsyncs in a new folder of the current directory. Each guest is one
real QEMU. The bare row is `qemu-img create` over the same image and QEMU until its monitor says that the guest executes, by this script
alone. Steps and tasks are timed by the cloud's own records (`server timeline`), not by this script's polling.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime

SKYLOOM, IMAGE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
TURNS = int(sys.argv[3]) if len(sys.argv) > 3 else 20
MANY = int(sys.argv[4]) if len(sys.argv) > 4 else 50
TOGETHER = 20


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Cloud:
    def __init__(self, folder):
        self.process = subprocess.Popen(
            [SKYLOOM, "dev", "--data-dir", folder, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        told = {}
        while len(told) < 2:
            name, _, value = self.process.stdout.readline().strip().partition("=")
            if name in ("SKYLOOM_ENDPOINT", "SKYLOOM_TOKEN"):
                told[name] = value
        self.environment = dict(os.environ, **told)
        self.endpoint, self.token = told["SKYLOOM_ENDPOINT"], told["SKYLOOM_TOKEN"]

    def call(self, method, path, body=None):
        request = urllib.request.Request(
            self.endpoint + path, method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def ended(self, task):
        while True:
            found = self.call("GET", f"/v1/tasks/{task}")
            found = found.get("task", found)
            if found["state"] in ("done", "failed", "cancelled", "stuck"):
                assert found["state"] == "done", found
                return
            time.sleep(0.02)

    def asked(self, method, path, body=None):
        accepted = self.call(method, path, body)
        self.ended(accepted["task"]["id"])
        return accepted

    def times(self, server, flow):
        """Milliseconds of the last such task, and of those in which a step of it was under way on the host."""
        entries = self.call("GET", f"/v1/servers/{server}/timeline")["items"]
        task = [e for e in entries if e["what"] == "task" and e["name"] == flow][-1]
        steps = sorted((moment(e["at"]), moment(e["until"])) for e in entries
                       if e["what"] == "step" and e["task"] == task["task"] and e["until"])
        busy, end = 0.0, 0.0
        for begin, until in steps:
            busy += max(0.0, until - max(begin, end))
            end = max(end, until)
        return 1000 * (moment(task["until"]) - moment(task["at"])), 1000 * busy

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


def bare(folder):
    """Milliseconds of what QEMU needs by itself."""
    disk, monitor = os.path.join(folder, "bare.qcow2"), os.path.join(folder, "bare.sock")
    began = time.monotonic()
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", IMAGE, disk, "1G"], check=True)
    guest = subprocess.Popen(
        ["qemu-system-x86_64", "-machine", "q35", "-m", "256", "-display", "none", "-nodefaults", "-serial", "null",
         "-drive", f"if=virtio,format=qcow2,file={disk}", "-qmp", f"unix:{monitor},server=on,wait=off"])
    while True:
        try:
            line = socket.socket(socket.AF_UNIX)
            line.connect(monitor)
            break
        except OSError:
            line.close()
            time.sleep(0.002)
    talk = line.makefile("rw")
    talk.readline()
    for command in ("qmp_capabilities", "query-status"):
        talk.write(json.dumps({"execute": command}) + "\n")
        talk.flush()
        answer = json.loads(talk.readline())
    took = 1000 * (time.monotonic() - began)
    assert answer["return"]["running"], answer
    guest.kill()
    guest.wait()
    os.remove(disk)
    os.remove(monitor)
    return took


def row(name, samples):
    samples = sorted(samples)
    at = lambda share: samples[min(len(samples) - 1, int(share * len(samples)))]
    print(f"| {name} | {statistics.median(samples):.0f} | {at(0.9):.0f} | {samples[-1]:.0f} |", flush=True)


def main():
    folder = tempfile.mkdtemp(prefix="guests-", dir=".")
    cloud, servers = Cloud(folder), []
    try:
        subprocess.run([SKYLOOM, "image", "import", "--name", "guest", "--format", "qcow2", "--file", IMAGE, "--wait"],
                       env=cloud.environment, check=True, stdout=subprocess.DEVNULL)
        for host in (host["meta"]["id"] for host in cloud.call("GET", "/v1/hosts")["items"]):
            cloud.call("PATCH", f"/v1/hosts/{host}", {"cpu_ratio": 100.0, "memory_ratio": 10.0, "disk_ratio": 10.0})
        wanted = lambda name: {"name": name, "image": "guest", "flavor": "m1.tiny"}
        figures = {}
        for turn in range(TURNS):
            figures.setdefault("QEMU alone: disk and start", []).append(bare(folder))
            server = cloud.asked("POST", "/v1/servers", wanted(f"turn-{turn}"))["server"]["meta"]["id"]
            for flow, verb in [("create", None), ("stop", "stop"), ("start", "start")]:
                if verb:
                    cloud.asked("POST", f"/v1/servers/{server}/actions/{verb}", {"force": True} if verb == "stop" else None)
                whole, host = cloud.times(server, f"server.{flow}")
                figures.setdefault(f"{flow}, accepted to done", []).append(whole)
                figures.setdefault(f"{flow}, outside the host's steps", []).append(whole - host)
            cloud.asked("DELETE", f"/v1/servers/{server}")
        print("| ms, one at a time | p50 | p90 | most |\n| --- | --- | --- | --- |")
        for name, samples in figures.items():
            row(name, samples)
        began, alone = time.monotonic(), cloud.memory()
        together = [cloud.call("POST", "/v1/servers", wanted(f"many-{n}")) for n in range(TOGETHER)]
        servers += [asked["server"]["meta"]["id"] for asked in together]
        for asked in together:
            cloud.ended(asked["task"]["id"])
        print(f"\n{TOGETHER} creates at once on one host, first request to last task done: {time.monotonic() - began:.1f} s")
        for n in range(TOGETHER, MANY):
            servers.append(cloud.asked("POST", "/v1/servers", wanted(f"many-{n}"))["server"]["meta"]["id"])
        time.sleep(20)
        print(f"the whole process: {alone:.1f} MiB without guests, {cloud.memory():.1f} MiB with {len(servers)}")
    finally:
        for server in servers:
            cloud.asked("DELETE", f"/v1/servers/{server}")
        cloud.process.terminate()
        cloud.process.wait()
        shutil.rmtree(folder, ignore_errors=True)


main()
