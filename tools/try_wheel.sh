#!/usr/bin/env bash
# Tries the wheel in dist/ as a user meets it: for each choice of extras a new virtual environment, what
# `pip install` brings that day, a few commands from an empty folder; then the environment is deleted.
#
#   tools/try_wheel.sh                              # none, register, segment, all: 8 GB of disk at a time
#   PYTHON=python3.13 tools/try_wheel.sh none       # one of them, with another Python
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
wheels=("$root"/dist/mpfnl-*.whl)
if [ "${#wheels[@]}" != 1 ] || [ ! -f "${wheels[0]}" ]; then
    echo "dist/ is to hold one wheel: make package" >&2
    exit 2
fi

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
export PATH="$place/venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_WAIT_POLICY=PASSIVE
unset PYTHONPATH VIRTUAL_ENV

# refused EXTRA COMMAND...: the command ends with status 2 and one line that names the extra.
refused() {
    local extra=$1 told status=0
    shift
    told=$("$@" 2>&1 >/dev/null) || status=$?
    echo "$told"
    if [ "$status" != 2 ] || [ "$(wc -l <<<"$told")" != 1 ] || [[ $told != *"pip install 'mpfnl[$extra]'"* ]]; then
        echo "status $status; expected 2 and one line that names the extra $extra" >&2
        return 1
    fi
}

try() { # what is to work, and what is to be refused, with these extras
    python -c 'import mpfnl, sys; assert "torch" not in sys.modules; print(mpfnl.__version__, mpfnl.__file__)'
    python -c 'import mpfnl, torch; print(tuple(mpfnl.PFNL3D()(torch.rand(1, 3, 8, 8, 8)).shape))'
    mpfnl --help >help.txt
    mpfnl phantom --patients 1 --small -o phantoms >/dev/null 2>&1
    case $1 in
        register | all)
            mpfnl prepare phantoms/cohort.csv --steps rigid -o prepared
            ;;
        *)
            refused register mpfnl prepare phantoms/cohort.csv --steps rigid -o prepared
            test ! -e prepared
            ;;
    esac
    local evaluate=(mpfnl evaluate phantoms/cohort.csv --split train --segment fast --phantom-weights -o tables)
    case $1 in
        segment | all)
            "${evaluate[@]}" | grep -A 8 'Table II'
            ;;
        *)
            refused segment "${evaluate[@]}"
            test ! -e tables
            ;;
    esac
}

for extras in "${@:-none register segment all}"; do
    for extra in $extras; do
        echo "=== $extra"
        rm -rf "$place/venv" "$place/empty"
        "$python" -m venv "$place/venv"
        wheel=${wheels[0]}
        [ "$extra" = none ] || wheel+="[$extra]"
        start=$SECONDS
        python -m pip install --quiet "$wheel"
        echo "installed in $((SECONDS - start)) s, $(du -sh "$place/venv" | cut -f1)"
        python -m pip check
        python -m pip list --format=freeze | grep -iE '^(torch|lightning|torchio|numpy|scipy|antspyx|totalseg.*)='
        mkdir "$place/empty"
        start=$SECONDS
        (cd "$place/empty" && try "$extra")
        echo "tried in $((SECONDS - start)) s with $(python -V)"
    done
done
