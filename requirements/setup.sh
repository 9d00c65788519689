#!/bin/sh
# Creates or completes a virtual environment with the locked packages and winnow itself: setup.sh FOLDER
set -eu
venv=$1
python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
    done
fi
[ -n "$python" ] || { echo "winnow needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "creating $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
rm -f "$venv"/.ready-*
echo "installing the locked packages into $venv (about 2 GB, minutes)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements/lock.txt 2>"$venv/pip.log" \
    || { grep -v "is ignored: it is neither" "$venv/pip.log" | tail -n 5 >&2; exit 1; }
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e . 2>>"$venv/pip.log" \
    || { tail -n 5 "$venv/pip.log" >&2; exit 1; }
