#!/usr/bin/env bash
# Deletes the masks that were applied to the src faces. Flags of `main.py xseg remove` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" xseg remove --input-dir "$WORKSPACE/data_src/aligned" "$@"
