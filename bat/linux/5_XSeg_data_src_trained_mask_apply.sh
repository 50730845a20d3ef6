#!/usr/bin/env bash
# Gives the src faces the masks that the trained XSeg sees. Flags of `main.py xseg apply` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" xseg apply --input-dir "$WORKSPACE/data_src/aligned" --model-dir "$WORKSPACE/model" "$@"
