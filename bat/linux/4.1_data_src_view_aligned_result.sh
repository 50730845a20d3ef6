#!/usr/bin/env bash
# Opens the folder of src faces as this system shows pictures.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" bare
run "$PYTHON" "$ROOT/bat/env/view.py" "$WORKSPACE/data_src/aligned" "$@"
