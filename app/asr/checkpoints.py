"""FunASR's checkpoints into networks of ours: read without running anything in them, checked tensor by tensor.

Which file, and what network it should fill, is the caller's to know.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from app.asr.errors import SourceError

# Parts of FunASR checkpoints that only training uses.
TRAINING_ONLY = ("ctc.", "criterion", "error_calculator", "specaug")

_Network = TypeVar("_Network", bound=nn.Module)


def filled(network: _Network, checkpoint: Path) -> _Network:
    """The network, made on the meta device, with the weights of a checkpoint; mapped from the file where it is fp32.

    Raises:
        SourceError: the checkpoint is damaged, holds code, or does not fit the network.
    """
    state = _read_checkpoint(checkpoint)
    wanted = network.state_dict()
    state = {key: value for key, value in state.items() if not key.startswith(TRAINING_ONLY)}
    missing, extra = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    wrong = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    for what, keys in (("lacks", missing), ("has unexpected", extra), ("has other shapes for", wrong)):
        if keys:
            raise SourceError(
                f"{checkpoint} {what} {len(keys)} tensors that config.yaml describes otherwise, e.g. {keys[0]}",
                fix="Use the config.yaml that belongs to this checkpoint.",
            )
    network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    broken = [key for key, value in network.state_dict().items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise SourceError(f"{checkpoint} holds NaN or Inf in {broken[0]}", fix="Fetch the checkpoint again.")
    return network.eval().requires_grad_(False)


def count_of(network: nn.Module) -> int:
    """How many numbers a network holds."""
    return sum(tensor.numel() for tensor in network.state_dict().values())


def _read_checkpoint(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what cannot be read is refused below
            # Only torch's zip format can be mapped; older files are read whole.
            state = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"{path} holds more than tensors, or is no checkpoint at all; it was not loaded, since that could run code",
            fix="Use a checkpoint saved as a plain state dict.",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise SourceError(
            f"{path} is damaged or truncated ({str(error).splitlines()[0]})",
            fix="Fetch the checkpoint again.",
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise SourceError(f"{path} is not a dictionary of tensors", fix="Use the model.pt of a FunASR model.")
    return {key.removeprefix("module."): value for key, value in state.items()}
