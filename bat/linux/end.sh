# shellcheck shell=bash
# Sourced by env.sh: `run COMMAND` is the last line of every launcher. A window that was opened for the launcher alone
# closes with it, so there it waits until what was said has been read. The launcher leads its session exactly then;
# where somebody typed its name, the shell does, and the command takes the launcher's place.
own_window=
if [ -z "${FACESMITH_NO_PAUSE:-}" ] && [ -t 0 ] && [ -t 1 ] && [ $$ != 1 ]; then
    if [ "$(ps -o sid= -p $$ 2>/dev/null | tr -d ' ')" = $$ ]; then own_window=yes; fi
fi

stay() {
    local code=$?
    read -rp "Ended with exit code $code. Press Enter to close this window. " _ || true
    exit "$code"
}

run() {
    if [ -n "$own_window" ]; then "$@"; else exec "$@"; fi
}

if [ -n "$own_window" ]; then trap stay EXIT; fi
