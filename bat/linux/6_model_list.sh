#!/usr/bin/env bash
# Lists the models of the workspace and their backups. Flags of `main.py model list` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" model list --model-dir "$WORKSPACE/model" "$@"
