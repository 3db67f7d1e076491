#!/bin/sh
# Reads the code for faults (check), or writes it in one style (fix). Needs .venv-dev and .venv-ops.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv-dev/bin:$PATH

case "${1:-}" in
    fix)
        ruff check --fix --quiet app images monitoring scripts tests ansible || true
        ruff format app images monitoring scripts tests ansible
        ;;
    check)
        ruff check app images monitoring scripts tests ansible
        ruff format --check --quiet --diff app images monitoring scripts tests ansible
        mypy
        (cd ansible && PATH=$PWD/../.venv-ops/bin:$PATH ANSIBLE_CONFIG=ansible.cfg ansible-lint -q -c .ansible-lint.yml)
        shellcheck scripts/*.sh .ci/run
        hadolint images/Dockerfile
        python scripts/bake_variants.py --check
        ;;
    *)
        echo "usage: $0 check|fix" >&2
        exit 1
        ;;
esac
