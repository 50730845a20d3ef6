#!/usr/bin/env bash
# Puts a backup in the place of a model, which is backed up first. Flags of `main.py model restore` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" model restore --model-dir "$WORKSPACE/model" "$@"
