# shellcheck shell=bash disable=SC1091,SC2034  # local.sh may be missing; the launchers use the variables
# Sourced by every launcher: `env.sh installed` (a Python with everything in it; `installed dfm`: with that extra of
# setup.cfg too), `env.sh present` (the environment as far as it is there, else any Python) or `env.sh bare` (any
# Python 3.10+).
# Sets ROOT, PYTHON, WORKSPACE, PRETRAIN_FACES and PRETRAINED_QUICK96. Own paths belong in bat/env/local.sh; see bat/env/README.md.
set -eu
# Some desktops start what is double-clicked with its streams closed.
{ true 9>&2; } || exec 2>/dev/null
{ true 9<&0; } 2>/dev/null || exec </dev/null
{ true 9>&1; } 2>/dev/null || exec >/dev/null
ROOT=$(CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
. "$ROOT/bat/linux/end.sh"
unset PYTHONHOME PYTHONPATH  # another program's Python settings (DeepFaceLab's own, for one) would break ours
export PYTHONNOUSERSITE=1 PYTHONUTF8=1

if [ -f "$ROOT/bat/env/local.sh" ]; then . "$ROOT/bat/env/local.sh"; fi
WORKSPACE=${FACESMITH_WORKSPACE:-$ROOT/workspace}
PRETRAIN_FACES=${FACESMITH_PRETRAIN_FACES:-$ROOT/pretrain_faces}
PRETRAINED_QUICK96=${FACESMITH_PRETRAINED_QUICK96:-$ROOT/pretrain_Quick96}

find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python3.14 python3.10 python; do
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            printf '%s\n' "$name"
            return
        fi
    done
    echo "facesmith needs Python 3.10 to 3.14 and found none: install it (Debian, Ubuntu: apt install python3)" >&2
    return 1
}

PYTHON=${FACESMITH_PYTHON:-$(find_python)}
if [ "$1" = installed ]; then
    if [ -z "${FACESMITH_PYTHON:-}" ]; then
        "$PYTHON" "$ROOT/bat/env/setup.py" --extras "${2:-}"
        PYTHON=$ROOT/.venv/bin/python
    fi
    if [ -n "${FACESMITH_WORKSPACE:-}" ] && [ ! -d "$WORKSPACE" ]; then
        echo "FACESMITH_WORKSPACE is $WORKSPACE, which is no folder: correct it in bat/env/local.sh" >&2
        exit 1
    fi
    mkdir -p "$WORKSPACE/data_src/aligned" "$WORKSPACE/data_dst/aligned" "$WORKSPACE/model"
elif [ "$1" = present ] && [ -z "${FACESMITH_PYTHON:-}" ] && [ -x "$ROOT/.venv/bin/python" ]; then
    PYTHON=$ROOT/.venv/bin/python
fi
