#!/usr/bin/env bash
# Times a training iteration against its floor. Flags of `main.py bench step` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" bench step "$@"
