#!/bin/sh
# Runs the GPU tests or the GPU benchmark with a Python whose torch has a CUDA device (PYTHON_GPU, python3).
#
#   scripts/gpu.sh test [PYTEST-ARGUMENT ...]
#   scripts/gpu.sh bench [--only STEP,...] [--minutes N] ...
#
# ASR_GPU_REHEARSAL=cpu rehearses both in .venv-dev, with the CPU as the device. Without a device the tests are skipped,
# with the reason, and the benchmark fails.
set -eu
cd "$(dirname "$0")/.."

verb=${1:-}
[ $# = 0 ] || shift
case "$verb" in
    test | bench) ;;
    *)
        echo "usage: $0 test|bench [ARGUMENT ...]" >&2
        exit 1
        ;;
esac

if [ "${ASR_GPU_REHEARSAL:-}" = cpu ]; then
    scripts/make_venv.sh dev
    python=.venv-dev/bin/python
    [ "$verb" = test ] || set -- --rehearse "$@"
else
    status=0
    scripts/make_venv.sh gpu || status=$?
    if [ $status = 3 ] && [ "$verb" = test ]; then
        echo "GPU tests: skipped, for the reason above."
        exit 0
    fi
    [ $status = 0 ] || exit 1
    python=.venv-gpu/bin/python
fi

if [ "$verb" = test ]; then
    case "$*" in
        *tests/*) ;;
        *) set -- "$@" tests/gpu ;;
    esac
    # Another torch than the pinned one warns of other things; -s shows what was measured.
    exec "$python" -m pytest -q -s -m gpu -W default -p no:cacheprovider "$@"
fi
exec "$python" -m scripts.bench.gpu "$@"
