#!/bin/sh
# Writes requirements/lock.txt: exact versions of what pyproject.toml's ranges resolve to in a new environment, without addresses,
# local version labels (+cpu) and the CUDA packages, which torch itself pins where it needs them. What the lock holds stays as it
# is, but for the packages that are named: requirements/lock.sh [PACKAGE ...]; with --all, nothing stays.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder" build' EXIT
cp requirements/lock.txt "$folder/held.txt"
for name in "$@"; do
    if [ "$name" = --all ]; then : >"$folder/held.txt"; else sed -i "/^$name==/Id" "$folder/held.txt"; fi
done
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet -c "$folder/held.txt" setuptools "$(pwd)[workflow,vision,text,share,tensorboard,dev]"
"$folder/venv/bin/python" -m pip check
{
    echo "# Made by requirements/lock.sh from pyproject.toml; edit that and run: make lock"
    "$folder/venv/bin/python" -m pip freeze --all | grep -vE '^(winnow|pip|nvidia-|cuda-|triton)' | sed 's/+cpu$//' | LC_ALL=C sort -f
} >requirements/lock.txt
