#!/usr/bin/env bash
# Unpacks the faceset.pak of the src faces. Flags of `main.py util` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" util --input-dir "$WORKSPACE/data_src/aligned" --unpack-faceset "$@"
