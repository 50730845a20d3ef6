#!/usr/bin/env bash
# Deletes data_src, data_dst and model of the workspace, once the question is answered, and makes them anew.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" bare
run "$PYTHON" "$ROOT/bat/env/clear.py" "$WORKSPACE" "$@"
