"""The shape of images/variants.json: which fields there are and what kind of value each holds.

What the fields mean is told in images/README.md; that they agree with one another is checked in table.py.
"""

from __future__ import annotations

from scripts.picking import shapes
from scripts.picking.shapes import Choice, Fields, Map, Pattern

SCHEMA = 1

_VERSION = Pattern(r"\d+(\.\d+)+", 'a version such as "525.60.13"')
_BRANCH = Pattern(r"\d{3}", 'a driver branch such as "580"')
_DEVICES = [Pattern(r"[0-9a-f]{4}-[0-9a-f]{4}", 'PCI device ids such as "1f81-1ff9"')]
_FLAGS = Fields({"required_flags": [str], "wanted_flags": [str], "reason": str})
_MIB = (
    "working_mib",
    "reserve_mib",
    "context_mib",
    "web_ram_mib",
    "punctuation_ram_mib",
    "page_ram_mib",
    "cpu_engine_ram_mib",
    "cuda_engine_ram_mib",
    "system_ram_mib",
    "swap_below_ram_mib",
)
SHAPE = Fields(
    {
        "schema": Choice((SCHEMA,)),
        "sources": Map(Fields({"default": str, "meaning": str})),
        "wheels": [
            Fields(
                {
                    "name": str,
                    "torch": str,
                    "index": str,
                    "cuda": shapes.Optional(_VERSION),
                    "architectures": [Pattern(r"(sm|compute)_\d{2,3}", 'an architecture such as "sm_86"')],
                    "minimum_driver": shapes.Optional(
                        Fields({"linux": _VERSION, "windows": shapes.Optional(_VERSION)})
                    ),
                }
            )
        ],
        "variants": [
            Fields(
                {
                    "name": Pattern(r"[a-z0-9-]+", "lower-case letters, digits and hyphens"),
                    "title": str,
                    "wheels": shapes.Optional(str),
                    "device": Choice(("cuda", "cpu")),
                    "precision": Choice(("fp16", "fp32", "int8")),
                    "pack": Choice(("fp16", "fp32", "int8")),
                    "platforms": [Choice(("linux/amd64", "linux/arm64"))],
                    "environment": Map(str),
                    "needs": Fields({"vram_mib": int, "ram_mib": int, "disk_mib": int}),
                }
            )
        ],
        "memory": Fields(
            {
                "weights_mib": Fields({"fp32": int, "fp16": int}),
                **dict.fromkeys(_MIB, int),
                "limit_factor": float,
                "origin": Map(str),
            }
        ),
        "speed": [
            Fields(
                {"device": Choice(("cuda", "cpu")), "flags": [str], "rtf": float, "cores": int, "origin": str}
            )
        ],
        "cpu": Fields({"x86_64": _FLAGS, "aarch64": _FLAGS}),
        "driver": Fields({"branch": _BRANCH, "reason": str}),
        "architectures": [
            Fields(
                {
                    "name": str,
                    "capability": Pattern(r"\d+\.[0-9x]", 'a compute capability such as "7.5"'),
                    "half": str,
                    "modules": [Choice(("open", "proprietary"))],
                    "first_branch": shapes.Optional(_BRANCH),
                    "last_branch": shapes.Optional(_BRANCH),
                    "devices": _DEVICES,
                }
            )
        ],
        "quirks": [Fields({"name": str, "devices": _DEVICES, "half": str, "reason": str})],
        "half": Map(
            Fields(
                {
                    "precision": shapes.Optional(Choice(("fp16", "fp32"))),
                    "setting": shapes.Optional(Choice(("auto", "fp16", "fp32"))),
                    "reason": str,
                }
            )
        ),
    }
)
