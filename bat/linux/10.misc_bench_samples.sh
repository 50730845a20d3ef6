#!/usr/bin/env bash
# Times the preparation of faces for training. Flags of `main.py bench samples` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" installed
run "$PYTHON" "$ROOT/main.py" bench samples "$@"
