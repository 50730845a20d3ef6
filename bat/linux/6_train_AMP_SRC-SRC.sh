#!/usr/bin/env bash
# Trains AMP on the src faces of the workspace on both sides, a first stage. Flags of `main.py train` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" train --training-data-src-dir "$WORKSPACE/data_src/aligned" --training-data-dst-dir "$WORKSPACE/data_src/aligned" --model-dir "$WORKSPACE/model" --model AMP "$@"
