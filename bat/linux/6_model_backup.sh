#!/usr/bin/env bash
# Copies a model as last saved to a folder of its backups. Flags of `main.py model backup` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" model backup --model-dir "$WORKSPACE/model" "$@"
