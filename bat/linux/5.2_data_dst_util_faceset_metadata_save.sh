#!/usr/bin/env bash
# Keeps the face data of the dst faces in a meta.dat, before editing them in other programs. Flags of `main.py util` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" util --input-dir "$WORKSPACE/data_dst/aligned" --save-faceset-metadata "$@"
