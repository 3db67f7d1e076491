#!/bin/sh
# Reads the code for faults (check), or writes it in one style (fix). Needs .venv-dev.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv-dev/bin:$PATH

case "${1:-}" in
    fix)
        ruff check --fix --quiet app scripts tests || true
        ruff format app scripts tests
        ;;
    check)
        ruff check app scripts tests
        ruff format --check --quiet --diff app scripts tests
        mypy
        shellcheck scripts/*.sh .ci/run
        ;;
    *)
        echo "usage: $0 check|fix" >&2
        exit 1
        ;;
esac
