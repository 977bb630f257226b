#!/usr/bin/env bash
# The figures of docs/performance.md: Markdown tables on standard output, progress on standard error.
#   tools/bench/run.sh          (make bench) the short ones: stores, control plane, the ten-step workflow beside its
#                               peers, a small recovery; then an idle `skyloom dev` looked at from outside
#   tools/bench/run.sh workflow the ten-step workflow beside its peers alone: about 3 minutes
#   tools/bench/run.sh remote   the API and its remote stores: the hub, events to 1,000 watchers, 2,000 agents idle and after
#                               outages of 60 s: about 6 minutes
#   tools/bench/run.sh servers  commits on PostgreSQL, MariaDB, etcd and SecantusDB beside their drivers' own: about 3 minutes
#   tools/bench/run.sh guests   real guests through `skyloom dev`: what a create, a stop and a start take beyond QEMU's own time, 20 creates
#                               at once, memory with 50 guests: about 6 minutes
#   tools/bench/run.sh long     recovery of 10,000 tasks, 10 minutes of 100 tasks a second, a million workflows on SQLite:
#                               about half an hour, and 15 GB below target/
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-target}
if [ "${1:-}" = remote ]; then
  "$cargo" bench --locked -p skyloom-store --bench feed
  "$cargo" run --release --locked -p skyloom-store-remote --example fleet
  exit
fi

if [ "${1:-}" = guests ]; then
  make guest >&2
  "$cargo" build --release --locked -p skyloom-cli
  cd "$target"
  exec "$OLDPWD/tools/bench/guests.py" release/skyloom guest/guest.qcow2
fi

if [ "${1:-}" = servers ]; then
  "$cargo" run --release --locked -p skyloom-store-sql --features postgres,mysql --example server_rate
  "$cargo" build --release --locked -p skyloom-store-etcd -p skyloom-store-mongo --examples >&2
  mkdir -p "$target/tmp"
  dir=$(mktemp -d "$(realpath "$target/tmp")/servers.XXXXXX")
  pids=()
  trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$dir"' EXIT
  # Their folders are on the same disk as those of the two before.
  port=$((20000 + RANDOM % 10000))
  url=http://127.0.0.1:$port peer=http://127.0.0.1:$((port + 1))
  etcd --name n1 --data-dir "$dir/etcd" --listen-client-urls "$url" --advertise-client-urls "$url" --listen-peer-urls "$peer" \
    --initial-advertise-peer-urls "$peer" --initial-cluster "n1=$peer" --log-level error >"$dir/etcd.log" 2>&1 &
  pids+=("$!")
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do kill -0 "${pids[0]}"; sleep 0.1; done
  "$target/release/examples/etcd_rate" "127.0.0.1:$port"
  tools/servers/secantus.sh "$target/venv-secantus"
  mkdir "$dir/mongo"
  "$(realpath "$target")/venv-secantus/bin/secantusd-py" --host 127.0.0.1 --port $((port + 2)) --storage-path "$dir/mongo" \
    --sync-on-commit >"$dir/mongo.log" 2>&1 &
  pids+=("$!")
  until grep -q 'listening on 127.0.0.1:' "$dir/mongo.log"; do kill -0 "${pids[1]}"; sleep 0.1; done
  "$target/release/examples/mongo_rate" "mongodb://127.0.0.1:$((port + 2))/bench?directConnection=true"
  exit
fi

settle=5   # seconds until an idle process is called idle
watched=20 # seconds for which it is watched

# The peers are no part of the workspace: what they depend on is nobody else's dependency.
"$cargo" build --release --locked --manifest-path benches/peers/Cargo.toml --target-dir "$target/peers" >&2
figures() { "$cargo" bench --locked --features full --bench figures -- "$@"; }
peers=("--peers" "$(realpath "$target/peers/release/skyloom-peers")")

case "${1:-}" in
  "") figures "${peers[@]}" ;;
  workflow) figures workflow "${peers[@]}"; exit ;;
  long)
    figures recovery
    figures history
    figures million
    exit
    ;;
  *) echo "usage: tools/bench/run.sh [workflow | remote | servers | guests | long]" >&2; exit 2 ;;
esac

"$cargo" build --release --locked -p skyloom-cli >&2

mkdir -p "$target/tmp"
dir=$(mktemp -d "$target/tmp/idle.XXXXXX")
pid=
cleanup() {
  if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  rm -rf "$dir"
}
trap cleanup EXIT

echo "measuring: an idle skyloom dev, $((settle + watched)) s" >&2
begin=$(date +%s%N)
"$target/release/skyloom" dev --data-dir "$dir/data" --listen 127.0.0.1:0 --hypervisor fake --store sqlite \
  >"$dir/out" 2>"$dir/log" &
pid=$!
until grep -q '^SKYLOOM_TOKEN=' "$dir/out"; do
  if ! kill -0 "$pid" 2>/dev/null || [ $(($(date +%s%N) - begin)) -gt 30000000000 ]; then
    echo "skyloom dev did not become ready:" >&2
    cat "$dir/log" >&2
    exit 1
  fi
  sleep 0.02
done
ready_ms=$((($(date +%s%N) - begin) / 1000000))

cpu_ticks() { awk '{ print $14 + $15 }' "/proc/$pid/stat"; }
status_kb() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$pid/status"; }

sleep "$settle"
before=$(cpu_ticks)
sleep "$watched"
after=$(cpu_ticks)

awk -v rss="$(status_kb VmRSS)" -v peak="$(status_kb VmHWM)" -v threads="$(awk '/^Threads:/ { print $2 }' "/proc/$pid/status")" \
  -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" -v seconds="$watched" -v ready="$ready_ms" '
  function goal(text, met) { return text (met ? ": met" : ": **missed**") }
  BEGIN {
    mb = rss / 1024; cpu = 100 * ticks / hz / seconds
    print "\n| idle `skyloom dev` (SQLite, fake hypervisor, 1 host) | measured | goal |\n| --- | --- | --- |"
    printf "| resident memory | %.1f MiB (peak %.1f MiB, %d threads) | %s |\n", mb, peak / 1024, threads, goal("< 80 MB", rss * 1024 < 80e6)
    printf "| CPU over %d s | %.2f %% of a core | %s |\n", seconds, cpu, goal("< 1 %", cpu < 1)
    printf "| start to ready, empty data folder | %d ms | %s |\n", ready, goal("< 3 s", ready < 3000)
  }'
