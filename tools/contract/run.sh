#!/usr/bin/env bash
# The OpenAPI document against a running API: schemathesis looks for server errors and undocumented answers.
#
#   run.sh SKYLOOM SCHEMATHESIS
set -euo pipefail

bin=$(realpath "$1")
schemathesis=$(realpath "$2")
data=$(mktemp -d "${TMPDIR:-/tmp}/skyloom-contract.XXXXXX")
dev=
finish() {
    code=$?
    trap - EXIT INT TERM
    [ -z "$dev" ] || { kill "$dev" 2>/dev/null || true; wait "$dev" 2>/dev/null || true; }
    [ "$code" -eq 0 ] || { echo "the end of the log:" >&2; tail -n 20 "$data/dev.log" >&2 || true; }
    rm -rf "$data"
    exit "$code"
}
trap finish EXIT INT TERM

"$bin" dev --data-dir "$data/cloud" --listen 127.0.0.1:0 --hypervisor fake --hosts 3 --store memory >"$data/dev.out" 2>"$data/dev.log" &
dev=$!
for _ in $(seq 300); do
    grep -q '^SKYLOOM_TOKEN=' "$data/dev.out" && break
    kill -0 "$dev" 2>/dev/null || { echo "skyloom dev ended" >&2; exit 1; }
    sleep 0.1
done
endpoint=$(sed -n 's/^SKYLOOM_ENDPOINT=//p' "$data/dev.out")
token=$(sed -n 's/^SKYLOOM_TOKEN=//p' "$data/dev.out")

# Streams that never end by themselves cannot be called to their end; their own tests call them.
cd "$data"
"$schemathesis" run "$endpoint/openapi.json" --url "$endpoint" \
    --header "Authorization: Bearer $token" \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
    --exclude-operation-id watch --exclude-operation-id follow_task --exclude-operation-id store_watch \
    --max-examples "${EXAMPLES:-30}" --seed 1 --request-timeout 20 --no-color
