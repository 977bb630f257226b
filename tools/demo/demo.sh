#!/usr/bin/env bash
# A real virtual machine from one command.
#
#   demo.sh SKYLOOM GUEST.qcow2        KEEP=1 leaves the cloud up
#   STORE=etcd demo.sh …               three processes, their store on an etcd of the demo's own
#   STORE=postgres demo.sh …           … on a PostgreSQL of its own, finished tasks in a MongoDB (SECANTUS=secantusd-py)
#
# Starts a cloud in a temporary folder (without STORE: `skyloom dev`), imports the guest image, creates a server, shows
# what happened, and reads the guest's own words from its serial console. With STORE it also kills the engine in the
# middle of a create. Afterwards nothing is left running and nothing is left on disk.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
bin=$(realpath "$1")
guest=$(realpath "$2")
keep=${KEEP:-}
store=${STORE:-}
case $store in '' | etcd | postgres) ;; *) echo "STORE is etcd, postgres or nothing" >&2; exit 2 ;; esac
data=$(mktemp -d "${TMPDIR:-/tmp}/skyloom-demo.XXXXXX")
pids=()

# Ends one process by pid and waits for it.
end() {
    kill "$1" 2>/dev/null || return 0
    kill -CONT "$1" 2>/dev/null || return 0
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
    [ "$code" -eq 0 ] || { echo "the demo failed; the ends of the logs:" >&2; tail -n 40 "$data"/*.log >&2 || true; }
    # The last first: each is ended before what it needs.
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do end "${pids[i]}"; done
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
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m$ skyloom %s\033[0m\n' "$*"; }
sky() { say "$@"; "$bin" "$@"; }
die() { echo "$*" >&2; exit 1; }

# start NAME PROGRAM ARGUMENTS…: in the background, its words in NAME.out and NAME.log, its pid in $started.
start() {
    local name=$1
    shift
    "$@" >"$data/$name.out" 2>"$data/$name.log" </dev/null &
    started=$!
    pids+=("$started")
}

# within SECONDS PID COMMAND…: until the command succeeds; the process must live meanwhile.
within() {
    local tries=$(($1 * 5)) pid=$2
    shift 2
    for _ in $(seq "$tries"); do
        kill -0 "$pid" 2>/dev/null || die "a process ended before: $*"
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.2
    done
    die "not within the time: $*"
}

# console NAME: until the guest's heartbeat is there; the guest must have said its name.
console() {
    local text='' ready
    say "server console $1"
    for _ in $(seq 240); do
        text=$("$bin" server console "$1" 2>/dev/null || true)
        grep -q 'skyloom-guest heartbeat' <<<"$text" && break
        sleep 0.5
    done
    ready=$(grep -a -o 'skyloom-guest ready hostname=.*' <<<"$text" | tail -n 1 | tr -d '\r')
    printf '%s\n' "$text" | tail -n 4
    [[ $ready == "skyloom-guest ready hostname=$1 "* ]] || die "the guest did not answer with its name"
    echo "the guest says: $ready"
}

# The task that made a server; it may be on its way to the archive, so that is looked at last.
creation() {
    local hot archived
    hot=$("$bin" task list --flow server.create --filter "name=$1" -o name)
    archived=$("$bin" task list --archived --flow server.create --filter "name=$1" -o name)
    printf '%s\n' ${hot:-$archived} | tail -n 1
}

if [ -z "$store" ]; then
    echo "starting a cloud in $data"
    start dev "$bin" dev --data-dir "$data" --listen 127.0.0.1:0
    within 30 "$started" grep -q '^SKYLOOM_TOKEN=' "$data/dev.out"
    SKYLOOM_ENDPOINT=$(sed -n 's/^SKYLOOM_ENDPOINT=//p' "$data/dev.out")
    SKYLOOM_TOKEN=$(sed -n 's/^SKYLOOM_TOKEN=//p' "$data/dev.out")
else
    . "$here/servers.sh"
    . "$here/processes.sh"
fi
export SKYLOOM_ENDPOINT SKYLOOM_TOKEN

sky host list
sky image import --name guest --format qcow2 --file "$guest" --wait
sky server create web-1 --image guest --flavor m1.tiny --wait
sky server show web-1
task=$(creation web-1)
sky task show "$task"
sky server why web-1
console web-1

[ -z "$store" ] || . "$here/kill.sh"

if [ -n "$keep" ]; then
    cat <<MSG

The cloud stays up. Go on with
  export SKYLOOM_ENDPOINT=$SKYLOOM_ENDPOINT SKYLOOM_TOKEN=$SKYLOOM_TOKEN
  $bin server list
End it with
  $bin server delete \$($bin server list -o name) --yes --wait; kill $(printf '%s\n' "${pids[@]}" | tac | tr '\n' ' '); rm -rf $data
MSG
    exit 0
fi

sky server stop web-1 --wait
# shellcheck disable=SC2046 # one word each
sky server delete $("$bin" server list -o name) --yes --wait
sky server list
[ -z "$store" ] || . "$here/after.sh"
echo "done; nothing is left running"
