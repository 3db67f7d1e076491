#!/bin/sh
# `make run`: serves a model, and before that makes its pack if there is none: scripts/run.sh MODEL PORT
#
# Packing needs torch, serving does not: it gets an environment of its own, which is made only when it is needed.
set -eu
cd "$(dirname "$0")/.."
model=$1 port=$2

if ! told=$(.venv-serve/bin/python -m app models --check "$model" 2>&1); then
    case "$told" in
        *"no pack of"*) ;;
        *) printf '%s\n' "$told" >&2; exit 2 ;;
    esac
    echo "There is no pack of $model yet: fetching the model and making one (once; about 1 GB is downloaded) ..."
    scripts/make_venv.sh pack
    .venv-pack/bin/python -m app pack "$model" --precision int8
fi
exec .venv-serve/bin/python -m app serve --model "$model" --port "$port"
