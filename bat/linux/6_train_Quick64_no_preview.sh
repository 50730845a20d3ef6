#!/usr/bin/env bash
# Trains Quick64 without a window: previews go to image files in the model folder. Flags of `main.py train` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" train --training-data-src-dir "$WORKSPACE/data_src/aligned" --training-data-dst-dir "$WORKSPACE/data_dst/aligned" --model-dir "$WORKSPACE/model" --model Quick64 --no-preview "$@"
