# Part of demo.sh: the database servers, each in a folder of its own, on loopback or a unix socket. Sets $uri and $archive.
# shellcheck shell=bash disable=SC2154 # the rest is demo.sh's

archive=

# free PORT: nobody listens there.
free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

etcd_server() {
    local port=0 url peer
    until [ "$port" -gt 0 ] && free "$port" && free $((port + 1)); do port=$((20000 + RANDOM % 10000)); done
    url=http://127.0.0.1:$port peer=http://127.0.0.1:$((port + 1))
    echo "starting etcd on port $port"
    start etcd etcd --name n1 --data-dir "$data/etcd" --listen-client-urls "$url" --advertise-client-urls "$url" \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "n1=$peer" --log-level error
    uri=etcd://127.0.0.1:$port/cloud
    within 60 "$started" "$bin" store migrate "$uri"
}

# PostgreSQL does not run as root: then it gets its Debian user, and the folder that it may enter.
postgres_server() {
    local tools dir=$data/pg as=()
    tools=$(find /usr/lib/postgresql -mindepth 2 -maxdepth 2 -name bin | sort -V | tail -n 1)
    mkdir -m 700 "$dir"
    if [ "$(id -u)" = 0 ]; then
        as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
        chown postgres "$dir"
        chmod 711 "$data"
    fi
    echo "starting PostgreSQL on the socket in $dir"
    (cd "$dir" && "${as[@]}" "$tools/initdb" -k -A trust -U postgres -E UTF8 --locale=C -D "$dir/data" >"$data/initdb.log" 2>&1)
    (cd "$dir" && exec "${as[@]}" "$tools/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c port=5432) \
        >"$data/postgres.log" 2>&1 </dev/null &
    pids+=("$!")
    within 60 "$!" "$tools/pg_isready" -h "$dir" -U postgres
    "$tools/createuser" -h "$dir" -U postgres skyloom
    "$tools/createdb" -h "$dir" -U postgres -O skyloom cloud
    uri="postgres://skyloom@/cloud?socket=$dir"
    sky store migrate "$uri"
}

mongo_server() {
    local port
    echo "starting a server of MongoDB's protocol"
    mkdir "$data/mongo"
    start mongo "$(realpath "${SECANTUS:?the path of secantusd-py: make secantus}")" --host 127.0.0.1 --port 0 \
        --storage-path "$data/mongo" --sync-on-commit
    within 60 "$started" grep -q 'listening on 127.0.0.1:' "$data/mongo.log"
    port=$(sed -nE 's/.*listening on 127\.0\.0\.1:([0-9]+).*/\1/p' "$data/mongo.log" | head -n 1)
    archive="mongodb://127.0.0.1:$port/archive?directConnection=true"
    sky store migrate "$archive"
}

case $store in
etcd) etcd_server ;;
postgres)
    postgres_server
    mongo_server
    ;;
esac
