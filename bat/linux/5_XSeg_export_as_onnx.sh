#!/usr/bin/env bash
# Writes the trained XSeg as an ONNX file. Flags of `main.py exportdfm` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed dfm
run "$PYTHON" "$ROOT/main.py" exportdfm --model-dir "$WORKSPACE/model" --model XSeg "$@"
