# Part of demo.sh: API, engine and agent. API and engine open the store by its address; the agent has only the API.
# shellcheck shell=bash disable=SC2154 # the rest is demo.sh's

programs=$(dirname "$bin")

engine() {
    start "engine-$1" "$programs/skyloom-engine" --set "store.uri=$uri" --set "images.dir=$data/images" \
        --set engine.name=engine-1
    engine=$started
}

# field NAME FILE: the last one of that name in a document.
field() { sed -nE "s/^ *\"$1\": *\"([^\"]+)\".*/\1/p" "$2" | tail -n 1; }

echo "starting the API, an engine and an agent in $data"
archiving=()
[ -z "$archive" ] || archiving=(--set "archive.uri=$archive" --set archive.after=1s)
start api "$programs/skyloom-api" --set "store.uri=$uri" --set api.listen=127.0.0.1:0 --set "images.dir=$data/images" \
    --set "bootstrap.token_file=$data/admin-token" "${archiving[@]}"
within 60 "$started" grep -q '^SKYLOOM_ENDPOINT=' "$data/api.out"
SKYLOOM_ENDPOINT=$(sed -n 's/^SKYLOOM_ENDPOINT=//p' "$data/api.out")
SKYLOOM_TOKEN=$(cat "$data/admin-token")
export SKYLOOM_ENDPOINT SKYLOOM_TOKEN
engine 1

say host add h1
(umask 077 && "$bin" host add h1 -o json >"$data/host.json" && field token "$data/host.json" >"$data/agent-token")
start agent "$programs/skyloom-agent" --set "store.uri=$SKYLOOM_ENDPOINT" --set "store.token_file=$data/agent-token" \
    --set "agent.host=$(field id "$data/host.json")" --set agent.name=h1 --set "agent.data_dir=$data/host"
agent=$started
up() { "$bin" host list | grep -w up; }
within 60 "$agent" up
