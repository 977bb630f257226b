#!/usr/bin/env bash
# Runs a test command, and when it fails says at the very end which tests failed and why, in a few lines.
#   tools/test.sh LOG COMMAND...
set -euo pipefail
log=$1
shift
mkdir -p "$(dirname "$log")"
if "$@" 2>&1 | tee "$log"; then exit 0; fi
# A failed test's section begins with "---- NAME stdout ----"; the panic's place and words are what it is about.
awk '
  /^---- .* stdout ----$/ { name = $2; left = 0 }
  /^failures:$/           { name = "" }
  name != "" && / panicked at / { print name ": " substr($0, index($0, "panicked at")); left = 3; next }
  left > 0 && $0 != ""    { print "  " substr($0, 1, 300); left-- }
  /^error(\[|:)/          { print substr($0, 1, 300) }
' "$log" | tail -40 >&2
exit 1
