# Part of demo.sh: kill -9 of the engine in the middle of a create, and what the next one makes of it.
# shellcheck shell=bash disable=SC2154 # the rest is demo.sh's

state() { "$bin" task show "$1" -o json | sed -nE 's/^    "state": *"([a-z_]+)".*/\1/p' | head -n 1; }

# The agent is held still meanwhile: however fast the machine is, the create is in its middle.
kill -STOP "$agent"
say server create web-2 --image guest --flavor m1.tiny --no-wait -o name
task=$("$bin" server create web-2 --image guest --flavor m1.tiny --no-wait -o name)
begun() { [ "$(state "$task")" = running ]; }
within 30 "$engine" begun
echo "kill -9 of the engine"
kill -9 "$engine"
wait "$engine" 2>/dev/null || true
for i in "${!pids[@]}"; do [ "${pids[i]}" != "$engine" ] || unset 'pids[i]'; done
pids=("${pids[@]}")
found=$(state "$task")
[ "$found" = running ] || die "the create was not in its middle any more: $found"
sky task show "$task"
kill -CONT "$agent"
echo "the next engine waits until the lease of the dead one is over (10 s)"
engine 2
sky task wait "$task"
[ "$(state "$task")" = done ] || die "the create did not end well"
console web-2
[ "$(guests | wc -l)" = 2 ] || die "two servers, but these guests: $(guests)"
