#!/usr/bin/env bash
# Trains SAEHD on two made-up people, no question asked; the numbers are in bat/env/demo.py. Flags of `main.py train` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/bat/env/demo.py" "$@"
