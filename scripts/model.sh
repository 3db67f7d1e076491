#!/bin/sh
# Makes a model pack: fetches the model from its hub, packs it, checks it. Once for a fleet; packs are copied from then on.
#
#   scripts/model.sh SOURCE PACK PRECISION
#
# SOURCE is a hub's id (owner/model) or a FunASR model directory, PACK the directory to write, PRECISION int8, fp16, fp32.
# VIA=toolbox uses the toolbox image, VIA=python the environment .venv-pack; without it, the image if it is there.
# MODELSCOPE_ENDPOINT names another hub of the same kind.
set -eu
cd "$(dirname "$0")/.."
source=$1 pack=$2 precision=$3
image=${IMAGE_PREFIX:-seaco-speech}:${VERSION:-0.1.0}-toolbox

if [ -z "${VIA:-}" ]; then
    VIA=python
    ! docker image inspect "$image" >/dev/null 2>&1 || VIA=toolbox
fi
if [ "$VIA" = python ]; then
    scripts/make_venv.sh pack
    exec .venv-pack/bin/python -m app pack "$source" --output "$pack" --precision "$precision"
fi

docker image inspect "$image" >/dev/null 2>&1 || scripts/image.sh toolbox
mkdir -p "$(dirname "$pack")" models
parent=$(cd "$(dirname "$pack")" && pwd)
set -- --rm --init --user "$(id -u):$(id -g)" --cap-drop ALL --security-opt no-new-privileges --read-only \
    --tmpfs /tmp:mode=1777 --volume "$parent:/packs" --volume "$PWD/models:/models"
[ -z "${MODELSCOPE_ENDPOINT:-}" ] || set -- "$@" --env MODELSCOPE_ENDPOINT
if [ -d "$source" ]; then
    set -- "$@" --volume "$(cd "$source" && pwd):/source:ro"
    source=/source
fi
docker run "$@" "$image" pack "$source" --output "/packs/$(basename "$pack")" --precision "$precision"
