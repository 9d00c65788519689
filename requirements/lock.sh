#!/bin/sh
# Writes what pyproject.toml's ranges resolve to in a new environment, without addresses and local version labels (+cpu):
#   lock.txt    names and versions, without the CUDA packages, which torch itself pins where it needs them
#   hashes.txt  the same with the sha256 of every file of these versions: what is installed
#   bom.json    the same as a CycloneDX bill of materials
#   docs.txt    what `make docs` needs beside these, with the sha256 of every file
# What the lock holds stays as it is, but for the packages that are named: requirements/lock.sh [PACKAGE ...]; with --all, nothing stays.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder" build/lib build/bdist.*' EXIT
cp requirements/lock.txt "$folder/held.txt"
for name in "$@"; do
    if [ "$name" = --all ]; then : >"$folder/held.txt"; else sed -i "/^$name==/Id" "$folder/held.txt"; fi
done
python3 -m venv "$folder/locked"
python3 -m venv "$folder/tools"
pip="$folder/locked/bin/python -m pip"
$pip install --quiet -c "$folder/held.txt" setuptools "$(pwd)[workflow,vision,text,share,tensorboard,timm,dev]"
$pip check
frozen() { $pip freeze --all | grep -vE '^(winnow|pip|nvidia-|cuda-|triton)' | sed 's/+cpu$//' | LC_ALL=C sort -f; }
hashed() {
    "$folder/tools/bin/uv" pip compile --quiet --no-deps --generate-hashes --no-annotate --no-header --python-version 3.11.9 "$1"
}
frozen >"$folder/lock.txt"
$pip install --quiet -c "$folder/lock.txt" "$(pwd)[docs]"
frozen | grep -vxF -f "$folder/lock.txt" >"$folder/docs.txt"
made="# Made by requirements/lock.sh from pyproject.toml; edit that and run: make lock"
{ echo "$made"; cat "$folder/lock.txt"; } >requirements/lock.txt
"$folder/tools/bin/python" -m pip install --quiet uv==0.13.9 cyclonedx-bom==7.5.0
hashed requirements/lock.txt >"$folder/hashed.txt"
{ echo "$made"; hashed "$folder/docs.txt"; } >requirements/docs.txt
$pip install --quiet --dry-run --ignore-installed --no-deps --report "$folder/report.json" -r requirements/lock.txt
"$folder/tools/bin/python" requirements/hashes.py "$folder/hashed.txt" "$folder/report.json"
"$folder/tools/bin/cyclonedx-py" requirements --output-reproducible --of JSON -o "$folder/bom.json" requirements/lock.txt
"$folder/tools/bin/python" requirements/hashes.py --bom "$folder/bom.json"
