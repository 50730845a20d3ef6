#!/usr/bin/env bash
# Copies the dst faces with labelled polygons into a folder of their own. Flags of `main.py xseg fetch` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" xseg fetch --input-dir "$WORKSPACE/data_dst/aligned" "$@"
