"""Fetching a model directory from ModelScope by its id, with what people need to know when that fails.

The work is done by the hub's own client (package modelscope_hub): it resumes a broken download and checks each file
against the hub's checksums. Here: which files, enough disk first, and clear words.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from app.asr.errors import ResourceError, SourceError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Everything but examples and pictures.
FILE_PATTERNS = ("*.json", "config.yaml", "*.pt", "*.pb", "tokens.txt", "am.mvn", "seg_dict", "*.model")
_DISK_RESERVE_BYTES = 200 << 20


def fetch(
    model_id: str, cache: Path, progress: Callable[[str], None], *, endpoint: str | None = None
) -> Path:
    """Downloads a model into `cache`/<model id> and returns that directory; a second call resumes or finds it.

    Args:
        model_id: `owner/name` on ModelScope.
        endpoint: another hub of the same kind (a mirror); None takes the client's setting.

    Raises:
        SourceError: the hub cannot be reached, has no such model, or the client is not installed.
        ResourceError: the disk has not enough room.
    """
    try:
        from modelscope_hub.api import HubApi
        from modelscope_hub.errors import HubError, NetworkError, NotExistError
    except ImportError as error:
        raise SourceError(
            f"fetching {model_id} from the hub needs the package modelscope, which is not installed",
            fix="Use the environment that scripts/make_venv.sh pack makes, or give a local FunASR model directory.",
        ) from error
    # The client tells its retries as warnings, one a second; the error below says it once.
    logging.getLogger("modelscope_hub").setLevel(logging.ERROR)
    api = HubApi(endpoint=endpoint) if endpoint else HubApi()
    target = cache / model_id
    try:
        progress(f"asking the hub for {model_id}")
        sizes = {file.path: file.size for file in api.list_repo_files(model_id, "model") if not file.is_dir}
        _check_disk(sizes, target)
        progress(f"downloading {sum(_wanted(sizes).values()) / 1e6:.0f} MB into {target}")
        api.download_repo(model_id, "model", local_dir=str(target), allow_patterns=list(FILE_PATTERNS))
    except NotExistError as error:
        raise SourceError(
            f"the hub has no model {model_id}", fix="Check the spelling, or look the id up on modelscope.cn."
        ) from error
    except NetworkError as error:
        raise SourceError(
            f"the hub cannot be reached, so {model_id} was not fetched",
            fix="Check the network and run the same command again (a download goes on where it stopped); without "
            "a network give a local FunASR model directory, or use the shipped model (MODEL=demo, --model demo).",
        ) from error
    except (HubError, OSError) as error:
        raise SourceError(
            f"fetching {model_id} failed ({error})",
            fix="Run the same command again; it goes on where it stopped.",
        ) from error
    return target


def _wanted(sizes: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if any(Path(name).match(p) for p in FILE_PATTERNS)}


def _check_disk(sizes: dict[str, int], target: Path) -> None:
    wanted = sum(_wanted(sizes).values())
    there = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) if target.exists() else 0
    parent = next(path for path in (target, *target.parents) if path.exists())
    free = shutil.disk_usage(parent).free
    needed = max(0, wanted - there) + _DISK_RESERVE_BYTES
    if free < needed:
        raise ResourceError(
            f"{parent} has {free / 1e6:.0f} MB free, the download needs {needed / 1e6:.0f} MB",
            fix="Free some space, or choose another place with --cache.",
        )
