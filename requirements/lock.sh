#!/bin/sh
# Writes requirements/lock.txt: what pyproject.toml's exact pins resolve to in a new environment, without addresses,
# local version labels (+cpu) and the CUDA packages, which torch itself pins where it needs them.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder" build' EXIT
python3 -m venv "$folder"
"$folder/bin/python" -m pip install --quiet setuptools==84.2.1 "$(pwd)[workflow,vision,text,dev]"
"$folder/bin/python" -m pip check
{
    echo "# Made by requirements/lock.sh from pyproject.toml; edit that and run: make lock"
    "$folder/bin/python" -m pip freeze --all | grep -vE '^(winnow|pip|nvidia-|cuda-|triton)' | sed 's/+cpu$//' | LC_ALL=C sort -f
} >requirements/lock.txt
