#!/bin/sh
# Creates or completes a virtual environment with the locked packages and winnow itself: setup.sh FOLDER
#
# Every file is checked against its sha256 in requirements/hashes.txt. A torch that pip takes from this machine's own disk (find-links)
# and whose sha256 is not there is installed all the same, and named: whoever set that up is trusted anyway.
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
: >"$venv/pip.log"
install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" 2>>"$venv/pip.log" \
        || { grep -v "is ignored: it is neither" "$venv/pip.log" | tail -n 12 >&2; exit 1; }
}
torch=$(grep '^torch==' requirements/lock.txt)
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --dry-run --ignore-installed --no-deps --report "$venv/torch.json" \
    "$torch" 2>>"$venv/pip.log" || true
# pip would prefer the index's file, whose address holds a hash, to one on disk that was put there to be used (a CPU build)
own=$("$venv/bin/python" -c '
import json, sys
(item,) = json.load(open(sys.argv[1]))["install"]
info = item["download_info"]
known = "sha256:" + info["archive_info"]["hashes"]["sha256"] in open("requirements/hashes.txt").read()
print(("known " if known else "unknown ") + info["url"] if info["url"].startswith("file:") else "")
' "$venv/torch.json" 2>/dev/null || true)
echo "installing the locked packages into $venv, each checked against its sha256 (about 2 GB, minutes)"
case $own in
    "known "*) install --no-deps "$torch" ;;
    "unknown "*)
        echo "$torch comes from ${own#unknown }, whose sha256 is not in requirements/hashes.txt: installed without that check"
        install --no-deps "$torch"
        ;;
esac
install --require-hashes --no-deps -r requirements/hashes.txt
install -r requirements/lock.txt # the CUDA packages that this torch pins, if any; all else is there
install --no-deps --no-build-isolation -e .
