# What is built, and under which names. Where things come from, what each image needs and its torch are in
# variants.bake.json, which scripts/bake_variants.py makes of variants.json; both files belong on the command line:
#
#   docker buildx bake -f images/docker-bake.hcl -f images/variants.bake.json cpu
#
# Every variable can be set in the environment. `make image VARIANT=cpu` does all this; docs/images.md tells more.

variable "VERSION" { default = "0.1.0" }
# Commit that is built, for the label.
variable "REVISION" { default = "" }
# Python of the base image: a name, or a path.
variable "PYTHON" { default = "python3" }
# Network of the steps that fetch packages; "host" where the builder's own has no way out.
variable "BUILD_NETWORK" { default = "default" }
# A pack below the clone to put into the image (at /pack), and the model that is served then: /pack.
variable "PACK" { default = "images/no-pack" }
variable "MODEL" { default = "demo" }
# "yes" adds a list of contents and a record of the build; only builders with driver docker-container can.
variable "ATTEST" { default = "" }

group "default" { targets = ["cpu"] }
group "all" { targets = ["cpu", "cuda-fp16", "cuda-fp32", "toolbox", "exporter"] }

target "_common" {
  context    = "."
  dockerfile = "images/Dockerfile"
  network    = BUILD_NETWORK
  args = {
    BASE_IMAGE    = BASE_IMAGE
    PYTHON        = PYTHON
    PACKAGE_INDEX = PACKAGE_INDEX
  }
  labels = {
    "org.opencontainers.image.version"   = VERSION
    "org.opencontainers.image.revision"  = REVISION
    "org.opencontainers.image.base.name" = BASE_IMAGE
  }
  attest = ATTEST == "yes" ? ["type=sbom", "type=provenance,mode=max"] : []
}

target "_service" {
  inherits = ["_common"]
  args     = { PACK = PACK, MODEL = MODEL }
}

target "cpu" {
  inherits = ["_service"]
  target   = "cpu"
  tags     = ["${IMAGE_PREFIX}:${VERSION}-cpu"]
}

target "cuda-fp16" {
  inherits = ["_service"]
  target   = "cuda-fp16"
  tags     = ["${IMAGE_PREFIX}:${VERSION}-cuda-fp16"]
}

target "cuda-fp32" {
  inherits = ["_service"]
  target   = "cuda-fp32"
  tags     = ["${IMAGE_PREFIX}:${VERSION}-cuda-fp32"]
}

target "toolbox" {
  inherits = ["_common"]
  target   = "toolbox"
  args     = { MODELSCOPE_ENDPOINT = MODELSCOPE_ENDPOINT }
  tags     = ["${IMAGE_PREFIX}:${VERSION}-toolbox"]
  labels = {
    "org.opencontainers.image.title" = "Makes model packs and runs the models of the catalogue"
  }
}

target "exporter" {
  inherits = ["_common"]
  target   = "exporter"
  tags     = ["${IMAGE_PREFIX}:${VERSION}-exporter"]
  labels = {
    "org.opencontainers.image.title" = "Prometheus exporter of VRAM, OOM kills and real-time factor"
  }
}
