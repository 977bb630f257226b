#!/usr/bin/env bash
# OpenStack's own tools against skyloom-api: Tempest's tests of the identity service, the openstack command, and rates.
#
#   run.sh SKYLOOM_API VENV
#
# VENV has tempest and python-openstackclient (`make test-openstack` makes it). Fails when a test of expected.txt does not pass.
set -euo pipefail

bin=$(realpath "$1")
venv=$(realpath "$2")
here=$(dirname "$(realpath "$0")")
data=$(mktemp -d "${TMPDIR:-/tmp}/skyloom-openstack.XXXXXX")
api=
finish() {
    code=$?
    trap - EXIT INT TERM
    [ -z "$api" ] || { kill "$api" 2>/dev/null || true; wait "$api" 2>/dev/null || true; }
    [ "$code" -eq 0 ] || { echo "the end of the log:" >&2; tail -n 20 "$data/api.log" >&2 || true; }
    rm -rf "$data"
    exit "$code"
}
trap finish EXIT INT TERM

# Tempest's administrators have their role in a project of their own, as Keystone allows; and all its users come from one address.
mkdir "$data/images" "$data/lock"
"$bin" --set "store.uri=sqlite://$data/skyloom.db" --set store.migrate=true --set "images.dir=$data/images" \
    --set api.listen=127.0.0.1:0 --set "bootstrap.token_file=$data/token" --set "bootstrap.password_file=$data/password" \
    --set openstack.admin_everywhere=true --set edge.logins=0 --set edge.anonymous=0 \
    >"$data/api.out" 2>"$data/api.log" &
api=$!
for _ in $(seq 300); do
    grep -q '^SKYLOOM_ENDPOINT=' "$data/api.out" && break
    kill -0 "$api" 2>/dev/null || { echo "skyloom-api ended" >&2; exit 1; }
    sleep 0.1
done
endpoint=$(sed -n 's/^SKYLOOM_ENDPOINT=//p' "$data/api.out")
password=$(cat "$data/password")

sed -e "s|@DIR@|$data|g; s|@ENDPOINT@|$endpoint|g; s|@PASSWORD@|$password|g" "$here/tempest.conf.in" >"$data/tempest.conf"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
printf '[DEFAULT]\ntest_path=%s/tempest/test_discover\ntop_dir=%s\n' "$site" "$site" >"$data/.stestr.conf"
cd "$data"
export TEMPEST_CONFIG_DIR=$data TEMPEST_CONFIG=tempest.conf
"$venv/bin/stestr" run --serial '^tempest\.api\.identity' >"$data/tempest.out" 2>&1 || true
sed -n 's/^{[0-9]*} \(.*\) \[[0-9.]*s\] \.\.\. ok$/\1/p' "$data/tempest.out" | sort >"$data/passed"
sed -n '/^Ran:/,/^ - Failed/p' "$data/tempest.out"
missing=$(sort "$here/expected.txt" | comm -23 - "$data/passed")
if [ -n "$missing" ]; then
    echo "these must pass and did not:" >&2
    echo "$missing" >&2
    grep -A 30 '^Captured traceback' "$data/tempest.out" | tail -n 200 >&2
    exit 1
fi
if new=$(sort "$here/expected.txt" | comm -13 - "$data/passed") && [ -n "$new" ]; then
    echo "these pass and are not in expected.txt:"
    echo "$new"
fi

export OS_AUTH_URL=$endpoint/identity/v3 OS_IDENTITY_API_VERSION=3 OS_USERNAME=admin OS_PASSWORD=$password \
    OS_USER_DOMAIN_ID=default OS_PROJECT_NAME=default OS_PROJECT_DOMAIN_ID=default OS_REGION_NAME=RegionOne
"$here/client.sh" "$venv/bin/openstack"
"$venv/bin/python" "$here/rates.py"
