#!/usr/bin/env bash
# Runs the quick tests with the lowest versions that pyproject.toml allows (constraints-lowest.txt), in a new
# virtual environment that is deleted afterwards: 7 GB of disk.
#
#   tools/test_lowest.sh                      # the rooms below
#   tools/test_lowest.sh tests/networks -x    # what pytest is to do instead
set -euo pipefail

cd "$(dirname "$0")/.."
python=${PYTHON:-python3.11}
rooms=(tests/ops tests/networks tests/transforms tests/metrics tests/volumes tests/data tests/inference tests/models)
[ "$#" -gt 0 ] || set -- "${rooms[@]}"

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_NUM_THREADS=1

"$python" -m venv "$place"
"$place/bin/python" -m pip install --quiet --constraint constraints-lowest.txt --editable '.[dev]'
# What is old warns of newer packages beneath it, and PyTorch 2.8 of its own SequentialLR: no errors here.
# Left out: PyTorch 2.8 does not compile that network under the tests' check of shapes; without the check it does.
"$place/bin/python" -m pytest -n 2 -m "not gpu and not slow" \
    -W ignore::DeprecationWarning -W "ignore:The epoch parameter in:UserWarning" \
    --deselect tests/inference/test_frozen.py::test_other_networks_come_through "$@"
