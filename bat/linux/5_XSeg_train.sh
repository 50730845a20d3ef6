#!/usr/bin/env bash
# Trains XSeg on the labelled faces in the workspace. Flags of `main.py train` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" train --training-data-src-dir "$WORKSPACE/data_src/aligned" --training-data-dst-dir "$WORKSPACE/data_dst/aligned" --pretraining-data-dir "$PRETRAIN_FACES" --model-dir "$WORKSPACE/model" --model XSeg "$@"
