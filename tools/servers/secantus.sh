#!/usr/bin/env bash
# Installs SecantusDB, a server of MongoDB's wire protocol, for the tests of backends/mongo: secantus.sh [FOLDER]
# It is a separate process under GPL-2.0-only: never linked, never shipped. Doing it twice costs nothing.
set -euo pipefail

venv=${1:-target/venv-secantus}
wanted='dnspython==2.9.2
future==1.0.0
numpy==2.4.6
pymongo==4.20.0
python-dateutil==4.0.0
s2sphere==0.2.5
SecantusDB==0.7.0b3
shapely==2.2.0
tzdata==2026.6'

if [ -x "$venv/bin/secantusd-py" ] && [ "$(cat "$venv/installed" 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi
python3 -m venv "$venv"
printf '%s\n' "$wanted" > "$venv/wanted"
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$venv/wanted"
mv "$venv/wanted" "$venv/installed"
