"""Makes images/variants.bake.json of images/variants.json: sources, build arguments and labels, as bake reads them.

Lives here: what of the table goes into an image and under which label. Does not live here: the table itself, and
which targets there are (images/docker-bake.hcl). Standard library only.

    python3 scripts/bake_variants.py            write the file
    python3 scripts/bake_variants.py --check    exit code 1 when it is not what would be written
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

IMAGES = Path(__file__).resolve().parent.parent / "images"
TABLE, BAKE = IMAGES / "variants.json", IMAGES / "variants.bake.json"
LABEL = "seaco-speech."
# An image without the GPU's torch that has one nevertheless: what packs are made with.
TOOLBOX, TOOLBOX_WHEELS = "toolbox", "cpu"


def bake_of(table: dict[str, Any]) -> dict[str, Any]:
    """The table as a bake file: defaults of its sources, and arguments and labels of each target."""
    wheels = {entry["name"]: entry for entry in table["wheels"]}
    targets: dict[str, Any] = {TOOLBOX: {"args": torch_arguments(wheels[TOOLBOX_WHEELS])}}
    for variant in table["variants"]:
        built = None if variant["wheels"] is None else wheels[variant["wheels"]]
        target: dict[str, Any] = {"labels": labels_of(variant, built)}
        if built is not None:
            target["args"] = torch_arguments(built)
        targets[variant["name"]] = target
    sources = {name: {"default": source["default"]} for name, source in table["sources"].items()}
    return {
        "//": "Made by scripts/bake_variants.py from variants.json; change that, then run `make variants`.",
        "variable": sources,
        "target": targets,
    }


def torch_arguments(wheels: dict[str, Any]) -> dict[str, str]:
    """Build arguments that choose torch; its index stays a variable of bake."""
    return {
        "TORCH": f"torch=={wheels['torch']}",
        "TORCH_INDEX": f"${{{wheels['index']}}}",
        "TORCH_WHEELS": wheels["name"],
    }


def labels_of(variant: dict[str, Any], wheels: dict[str, Any] | None) -> dict[str, str]:
    """What an image needs, readable without pulling it: sizes in MiB, versions and compute capabilities as text."""
    labels = {
        "org.opencontainers.image.title": f"Mandarin speech to text: {variant['title']}",
        f"{LABEL}variant": variant["name"],
        f"{LABEL}precision": variant["precision"],
        f"{LABEL}pack": variant["pack"],
        f"{LABEL}platforms": " ".join(variant["platforms"]),
    }
    for name, mib in variant["needs"].items():
        labels[f"{LABEL}needs.{name.replace('_', '-')}"] = str(mib)
    if wheels is not None:
        labels[f"{LABEL}torch"] = wheels["torch"]
        labels[f"{LABEL}cuda"] = wheels["cuda"]
        labels[f"{LABEL}cuda.architectures"] = " ".join(wheels["architectures"])
        labels[f"{LABEL}needs.driver"] = wheels["minimum_driver"]["linux"]
        labels[f"{LABEL}needs.compute-capability"] = lowest_capability(wheels["architectures"])
    return labels


def lowest_capability(architectures: list[str]) -> str:
    """The lowest compute capability with code of its own: of sm_75 and sm_100 "7.5"."""
    digits = [name.partition("_")[2] for name in architectures if name.startswith("sm_")]
    number = min(digits, key=int)
    return f"{number[:-1]}.{number[-1]}"


def main(arguments: list[str]) -> int:
    """Write or check; the exit code."""
    text = json.dumps(bake_of(json.loads(TABLE.read_text(encoding="utf-8"))), indent=2) + "\n"
    if arguments == ["--check"]:
        if BAKE.exists() and BAKE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{BAKE} does not match {TABLE.name}. What to do: run `make variants`.", file=sys.stderr)
        return 1
    BAKE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
