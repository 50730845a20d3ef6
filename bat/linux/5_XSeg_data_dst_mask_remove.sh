#!/usr/bin/env bash
# Deletes the labelled polygons of the dst faces. Flags of `main.py xseg remove_labels` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" xseg remove_labels --input-dir "$WORKSPACE/data_dst/aligned" "$@"
