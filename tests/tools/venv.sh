#!/bin/sh
# Usage: venv.sh FOLDER EXTRA
# Builds the virtual environment FOLDER with this project, editable, and its extra EXTRA.
# FOLDER/ready is written last, so a build that was interrupted is done again.
# PYTHON=/path/to/python in the environment chooses the interpreter; else the newest up to 3.13 is taken.
# On Debian as root, a missing venv module is installed; otherwise one sentence says what to do.
set -eu

folder=$1
extra=$2

find_python() {
    for name in ${PYTHON:-python3.13 python3.12 python3.11 python3.10 python3}; do
        # Asked for its version, because a name on the PATH may be a shim with nothing behind it.
        path=$("$name" -c 'import sys; sys.version_info >= (3, 10) and print(sys.executable)' 2>/dev/null) || continue
        [ -n "$path" ] || continue
        first=${first:-$path}
        if has_venv "$path"; then
            python=$path
            return 0
        fi
    done
    return 1
}

has_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

install_venv() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    short=$("$first" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    echo "installing $short-venv with apt-get"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$short-venv" >/dev/null
    has_venv "$first"
}

first=
if ! find_python; then
    if [ -z "$first" ]; then
        echo "Lightbus needs Python 3.10 or newer, and none of these is one: ${PYTHON:-python3.13 python3.12 python3.11 python3.10 python3}." >&2
        exit 1
    fi
    if ! install_venv; then
        echo "$first has no working venv module (ensurepip is missing): install it, on Debian and Ubuntu with 'apt-get install python3-venv'." >&2
        exit 1
    fi
    python=$first
fi

echo "building $folder with $python"
rm -rf "$folder"
"$python" -m venv "$folder"
if ! "$folder/bin/python" -m pip install -qq --disable-pip-version-check --editable ".[$extra]"; then
    echo "$folder could not be built: pip failed, see its message above." >&2
    exit 1
fi
touch "$folder/ready"
