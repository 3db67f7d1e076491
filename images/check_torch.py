"""Build-time check: the torch of an image is the build that variants.json promises to the picker and on the labels.

A wrong build starts everywhere and then runs on the CPU, or says "no kernel image"; here it ends the image's build.
Works without a GPU: the architectures are read from the library itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def differences(
    build: str, cuda: str | None, architectures: list[str], wheels: dict[str, object]
) -> list[str]:
    """What differs from an entry of `wheels` in variants.json, each as a sentence; [] when all is right.

    Args:
        build: torch's version with its build tag, "2.13.0+cu126".
        cuda: the CUDA version torch was built for, None for none.
        architectures: those it holds code for, "sm_86" or "compute_90".
    """
    found = []
    tag = build.partition("+")[2] or "none"
    if tag != wheels["name"]:
        found.append(f"torch {build} has the build tag {tag}, and the table says {wheels['name']}")
    if cuda != wheels["cuda"]:
        found.append(f"it was built for CUDA {cuda}, and the table says {wheels['cuda']}")
    if sorted(architectures) != sorted(map(str, _list(wheels["architectures"]))):
        found.append(
            f"it holds code for {' '.join(sorted(architectures)) or 'no GPU'}, "
            f"and the table says {' '.join(_list(wheels['architectures'])) or 'no GPU'}"
        )
    return found


def main(arguments: list[str]) -> int:
    """`check_torch.py variants.json cu126`; 1 with every difference on standard error."""
    import torch

    table = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    wheels = next((entry for entry in table["wheels"] if entry["name"] == arguments[1]), None)
    if wheels is None:
        print(f"variants.json has no wheels named {arguments[1]!r}.", file=sys.stderr)
        return 1
    # torch.cuda.get_arch_list() is empty where there is no GPU; this is what it would return.
    flags = getattr(torch._C, "_cuda_getArchFlags", str)() or ""  # noqa: SLF001
    found = differences(torch.__version__, torch.version.cuda, flags.split(), wheels)
    for sentence in found:
        print(f"The wrong torch: {sentence}.", file=sys.stderr)
    if found:
        print(
            "What to do: set TORCH, TORCH_INDEX and TORCH_WHEELS so that they fit together.", file=sys.stderr
        )
    return 1 if found else 0


def _list(value: object) -> list[str]:
    return list(value) if isinstance(value, list) else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
