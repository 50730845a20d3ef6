#!/usr/bin/env bash
# Reads every file of the models of the workspace: whole, finite, as it was saved. Flags of `main.py model verify` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" model verify --model-dir "$WORKSPACE/model" "$@"
