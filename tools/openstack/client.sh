#!/usr/bin/env bash
# The openstack command through a day of an administrator: who it is told by OS_… variables.
#
#   client.sh OPENSTACK
set -euo pipefail

os=$1
value() { "$os" "$@" -f value; }

[ -n "$(value token issue -c id)" ]
[ "$(value catalog list -c Type | grep -c '^identity$')" = 1 ]
project=$(value project create shop --description 'a shop' --property team=blue --tag web -c id)
[ "$(value project show shop -c id)" = "$project" ]
user=$(value user create clerk --password 'counting the coins' --email clerk@example --project shop -c id)
value role create cashier -c id >/dev/null
"$os" role add --user clerk --project shop member
"$os" role add --user clerk --project shop cashier
[ "$(value role assignment list --user clerk --project shop --names -c Role | sort | tr '\n' ' ')" = 'cashier member ' ]
value group create staff -c id >/dev/null
"$os" group add user staff clerk
"$os" group contains user staff clerk >/dev/null
"$os" endpoint list --service identity -f value -c URL >/dev/null

# The clerk itself, then a program of the clerk.
as_clerk=(--os-username clerk --os-password 'counting the coins' --os-project-name shop)
[ "$("$os" "${as_clerk[@]}" token issue -f value -c user_id)" = "$user" ]
if "$os" "${as_clerk[@]}" user list >/dev/null 2>&1; then
    echo "a member lists users" >&2
    exit 1
fi
made=$(value "${as_clerk[@]}" application credential create till --role member -c id -c secret)
id=${made%%$'\n'*} secret=${made##*$'\n'}
env -u OS_USERNAME -u OS_PASSWORD -u OS_USER_DOMAIN_ID -u OS_PROJECT_NAME -u OS_PROJECT_DOMAIN_ID \
    OS_AUTH_TYPE=v3applicationcredential OS_APPLICATION_CREDENTIAL_ID="$id" OS_APPLICATION_CREDENTIAL_SECRET="$secret" \
    "$os" token issue -f value -c project_id | grep -qx "$project"
"$os" "${as_clerk[@]}" application credential delete till
"$os" "${as_clerk[@]}" ec2 credentials create -f value -c access >/dev/null

"$os" role remove --user clerk --project shop cashier
"$os" user delete clerk
"$os" group delete staff
"$os" role delete cashier
"$os" project delete shop
[ -z "$(value project list -c Name | grep -x shop || true)" ]
echo "openstack: all as it should be"
