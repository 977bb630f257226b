# Part of demo.sh: the store is sound, and what has ended is in the archive.
# shellcheck shell=bash disable=SC2154 # the rest is demo.sh's

[ -z "$("$bin" server list -o name)" ] || die "servers are left"
sky store check "$uri"
[ -n "$archive" ] || return 0

moved() { [ -z "$("$bin" task list -o name)" ] && [ -n "$("$bin" task list --archived -o name)" ]; }
within 60 "$engine" moved
sky task list --archived
task=$(creation web-1)
sky task show "$task"
"$bin" task show "$task" -o json | grep '"archived": true' >/dev/null || die "the task is not read from the archive"
sky store check "$archive"
echo
echo "the same task as MongoDB's own driver reads it:"
"$(dirname "$SECANTUS")/python" - "$archive" "$task" <<'PYTHON'
import sys
import pymongo

uri, task = sys.argv[1:]
found = list(pymongo.MongoClient(uri)["archive"]["skyloom_docs"].find({"value.task.id": task}))
assert len(found) == 1, found
document = found[0]
print(document["_id"], document["value"]["task"]["flow"], document["value"]["task"]["state"])
assert document["value"]["task"]["state"] == "done", document
PYTHON
