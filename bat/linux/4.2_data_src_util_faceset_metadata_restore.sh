#!/usr/bin/env bash
# Puts the face data of a meta.dat back into src faces that were edited. Flags of `main.py util` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" util --input-dir "$WORKSPACE/data_src/aligned" --restore-faceset-metadata "$@"
