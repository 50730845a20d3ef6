#!/usr/bin/env bash
# Exports a Quick64 model of the workspace as a .dfm. Flags of `main.py exportdfm` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed dfm
run "$PYTHON" "$ROOT/main.py" exportdfm --model-dir "$WORKSPACE/model" --model Quick64 "$@"
