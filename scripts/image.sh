#!/bin/sh
# Builds images with bake: image.sh [TARGET ...], targets as in images/docker-bake.hcl (cpu).
#
# Variables of bake come from the environment: BASE_IMAGE, PACKAGE_INDEX, TORCH_INDEX_CU126, IMAGE_PREFIX, PACK, ...
# PUSH=yes sends the images to the registry in IMAGE_PREFIX, with a list of contents and a record of the build where the
# builder can make them. BAKE="--set ..." is handed on as it is.
set -eu
cd "$(dirname "$0")/.."

stop() {
    printf '%s\n' "$@" >&2
    exit 2
}

command -v docker >/dev/null || stop "Docker is not installed." "What to do: install it, or go without containers: make run"
docker buildx version >/dev/null 2>&1 ||
    stop "Docker has no buildx plugin." "What to do: install docker-buildx (Debian, Ubuntu) or docker-buildx-plugin (docker.com)."
docker info >/dev/null 2>&1 ||
    stop "Docker does not answer." "What to do: start it, or ask for permission (group docker)."

driver=$(docker buildx inspect 2>/dev/null | sed -n 's/^Driver: *//p')
output=--load
if [ "${PUSH:-}" = yes ]; then
    output=--push
    # Docker's own store cannot keep attestations, and its built-in builder cannot make them.
    [ "$driver" = docker ] || export ATTEST=yes
fi
REVISION=${REVISION:-$(git rev-parse HEAD 2>/dev/null || true)}
export REVISION

# shellcheck disable=SC2086  # BAKE is a list of words
exec docker buildx bake "$output" -f images/docker-bake.hcl -f images/variants.bake.json ${BAKE:-} "${@:-cpu}"
