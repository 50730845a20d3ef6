#!/usr/bin/env bash
# Makes a video of the preview history of a model. Flags of `main.py videoed timelapse` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed video
run "$PYTHON" "$ROOT/main.py" videoed timelapse --model-dir "$WORKSPACE/model" --output-file "$WORKSPACE/preview_history.mp4" "$@"
