#!/usr/bin/env bash
# Set-up with the test extras, then lint, types and tests. --fresh: in a new environment. Arguments of pytest may follow (-m slow).
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" bare
run "$PYTHON" "$ROOT/bat/env/checks.py" "$@"
