#!/usr/bin/env bash
# A real virtual machine from one command.
#
#   demo.sh SKYLOOM GUEST.qcow2        KEEP=1 leaves the cloud up
#
# Starts `skyloom dev` in a temporary folder, imports the guest image, creates a server, shows what happened, and reads
# the guest's own words from its serial console. Afterwards nothing is left running and nothing is left on disk.
set -euo pipefail

bin=$(realpath "$1")
guest=$(realpath "$2")
keep=${KEEP:-}
data=$(mktemp -d "${TMPDIR:-/tmp}/skyloom-demo.XXXXXX")
dev=

# Ends one process by pid and waits for it.
end() {
    kill "$1" 2>/dev/null || return 0
    for _ in $(seq 100); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.1; done
    kill -9 "$1" 2>/dev/null || true
}

# The pids of the guests that live in our folder, by what the hypervisor wrote down.
guests() {
    find "$data" -name live.json -exec sed -nE 's/.*"pid": *([0-9]+).*/\1/p' {} + 2>/dev/null
}

finish() {
    code=$?
    trap - EXIT INT TERM
    if [ "$code" -eq 0 ] && [ -n "$keep" ]; then
        return 0
    fi
    [ "$code" -eq 0 ] || { echo "the demo failed; the end of the log:" >&2; tail -n 40 "$data/dev.log" >&2 || true; }
    [ -z "$dev" ] || end "$dev"
    for pid in $(guests); do
        # Only a process that is really ours: its command line names our folder.
        if [ -r "/proc/$pid/cwd" ] && [[ $(readlink "/proc/$pid/cwd") == "$data"* ]]; then
            [ "$code" -ne 0 ] || { echo "a guest was still running: $pid" >&2; code=1; }
            end "$pid"
        fi
    done
    rm -rf "$data"
    exit "$code"
}
trap finish EXIT INT TERM

say() { printf '\n\033[1m$ skyloom %s\033[0m\n' "$*"; }
sky() { say "$@"; "$bin" "$@"; }

echo "starting a cloud in $data"
"$bin" dev --data-dir "$data" --listen 127.0.0.1:0 >"$data/dev.out" 2>"$data/dev.log" &
dev=$!
for _ in $(seq 300); do
    grep -q '^SKYLOOM_TOKEN=' "$data/dev.out" && break
    kill -0 "$dev" 2>/dev/null || { echo "skyloom dev ended" >&2; exit 1; }
    sleep 0.1
done
SKYLOOM_ENDPOINT=$(sed -n 's/^SKYLOOM_ENDPOINT=//p' "$data/dev.out")
SKYLOOM_TOKEN=$(sed -n 's/^SKYLOOM_TOKEN=//p' "$data/dev.out")
export SKYLOOM_ENDPOINT SKYLOOM_TOKEN

sky host list
sky image import --name guest --format qcow2 --file "$guest" --wait
sky server create web-1 --image guest --flavor m1.tiny --wait
sky server show web-1
task=$("$bin" task list -o name | tail -n 1)
sky task show "$task"
sky server why web-1

say "server console web-1"
for _ in $(seq 240); do
    console=$("$bin" server console web-1 2>/dev/null || true)
    grep -q 'skyloom-guest heartbeat' <<<"$console" && break
    sleep 0.5
done
ready=$(grep -a -o 'skyloom-guest ready hostname=.*' <<<"$console" | tail -n 1 | tr -d '\r')
printf '%s\n' "$console" | tail -n 4
[[ $ready == "skyloom-guest ready hostname=web-1 "* ]] || { echo "the guest did not answer with its name" >&2; exit 1; }
echo "the guest says: $ready"

if [ -n "$keep" ]; then
    cat <<MSG

The cloud stays up. Go on with
  export SKYLOOM_ENDPOINT=$SKYLOOM_ENDPOINT SKYLOOM_TOKEN=$SKYLOOM_TOKEN
  $bin server list
End it with
  $bin server delete web-1 --yes --wait; kill $dev; rm -rf $data
MSG
    exit 0
fi

sky server stop web-1 --wait
sky server delete web-1 --yes --wait
sky server list
echo "done; nothing is left running"
