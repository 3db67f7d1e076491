#!/bin/sh
# Sets up a Python environment from the locked lists in requirements/; costs nothing when it is there already.
#
#   scripts/make_venv.sh cpu     .venv        what transcription on a CPU needs
#   scripts/make_venv.sh dev     .venv-dev    the same, and what packing, training and the tests need
#   scripts/make_venv.sh bench   .venv-bench  the programs we compare ourselves with
#
# PYTHON=/path/to/python chooses the interpreter; else the first of 3.10 to 3.13 that is found is taken.
# A half-made environment is made again; a directory that this script did not make is never touched.
set -eu
cd "$(dirname "$0")/.."

torch=2.13.0+cpu
torch_index=https://download.pytorch.org/whl/cpu

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

case "${1:-}" in
    cpu) venv=.venv lists="cpu" with_torch=no newest=13 ;;
    dev) venv=.venv-dev lists="cpu pack train dev" with_torch=yes newest=13 ;;
    bench) venv=.venv-bench lists="bench" with_torch=yes newest=12 ;;
    *) stop "usage: $0 cpu|dev|bench" ;;
esac

suits() {
    "$1" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $newest))" 2>/dev/null
}

find_python() {
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if suits "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    stop "No Python 3.10 to 3.$newest was found (tried: ${PYTHON:-python3, python3.10 to python3.13})." \
        "Install one (Debian, Ubuntu: apt-get install python3) or name one: PYTHON=/path/to/python make ..."
}

fingerprint() {
    {
        "$python" -c "import sys; print(sys.version_info[:2], sys.base_prefix)"
        for list in $lists; do cat "requirements/$list.txt"; done
        printf '%s %s\n' "$with_torch" "$torch"
    } | cksum
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

# Debian and Ubuntu ship python3 without the part that puts pip into a new environment.
make_empty_venv() {
    if "$python" -c "import ensurepip, venv" 2>/dev/null; then
        "$python" -m venv "$venv"
        return
    fi
    if "$python" -m virtualenv --version >/dev/null 2>&1; then
        "$python" -m virtualenv --quiet "$venv"
        return
    fi
    version=$("$python" -c "import sys; print('%d.%d' % sys.version_info[:2])")
    package=python$version-venv
    if command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }; then
        echo "Installing $package, without which Python cannot make environments ..."
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null 2>&1 || {
            as_root apt-get update -qq
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null
        }
        "$python" -m venv "$venv"
        return
    fi
    stop "This Python cannot make environments: its venv module is incomplete." \
        "Type: sudo apt-get install $package   (or: $python -m pip install --user virtualenv), then try again."
}

pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-deps --no-compile --quiet "$@"
}

install_torch() {
    pip_install "torch==$torch" 2>"$venv/torch.log" ||
        pip_install "torch==$torch" --index-url "$torch_index" 2>>"$venv/torch.log" || {
        cat "$venv/torch.log" >&2
        stop "torch $torch could not be installed; see above. Check the network, then run the same command again."
    }
}

python=$(find_python)
wanted=$(fingerprint)
if [ "$(cat "$venv/.complete" 2>/dev/null || true)" = "$wanted" ]; then
    exit 0
fi
if [ -e "$venv" ] && [ ! -e "$venv/.ours" ]; then
    stop "$venv exists, but was not made by $0. Move it away, then try again."
fi

echo "Setting up $venv with $("$python" --version) ($lists$([ $with_torch = no ] || echo " torch")) ..."
rm -rf "$venv"
mkdir "$venv"
: >"$venv/.ours"
make_empty_venv
files=""
for list in $lists; do files="$files -r requirements/$list.txt"; done
# shellcheck disable=SC2086  # $files is a list of words without blanks
pip_install $files ||
    stop "Installing the packages failed; see above. Check the network, then run the same command again."
[ $with_torch = no ] || install_torch
printf '%s\n' "$wanted" >"$venv/.complete"
