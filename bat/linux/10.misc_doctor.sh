#!/usr/bin/env bash
# Says what is wrong with this machine and what to do about it; sets nothing up. Flags of `main.py doctor` may follow.
# shellcheck source=SCRIPTDIR/env.sh
. "$(dirname "$(readlink -f "$0")")/env.sh" present
run "$PYTHON" "$ROOT/main.py" doctor --workspace "$WORKSPACE" "$@"
