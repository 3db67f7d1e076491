"""Models of other families (SenseVoice, UniASR, Whisper ...) through FunASR's AutoModel, one segment at a time.

Here: opening a model directory without surprises, one call a segment, and the way from FunASR's answer to tokens with
times. How a line of text becomes tokens is in written_text.py, which files and packages it takes in funasr_files.py.

What FunASR is not given: no voice detection and no punctuation model of its own (its batching overshoots its budget),
no user's text (it would fetch URLs and read files), no download, no code from a model directory, no dither (it makes
results random), nothing of one call's settings in the next.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from app.asr import hub
from app.asr.backend import EncodedHotwords
from app.asr.catalogue import CatalogueEntry, listing, models_directory
from app.asr.errors import (
    AsrError,
    DeviceError,
    DeviceLostError,
    DeviceMemoryError,
    InputError,
    SourceError,
)
from app.asr.funasr_files import WHISPER, ModelFiles, check_packages, find_files, missing_package
from app.asr.joining import Recognition
from app.asr.memory import DeviceMemory, HostMemory
from app.asr.resampling import SAMPLE_RATE
from app.asr.written_text import TextVocabulary, align, cut_line, spread

SENSEVOICE, UNIASR = "SenseVoiceSmall", "UniASR"
# Shorter segments get silence behind them: some networks cannot take what is shorter than their convolutions.
SHORTEST_SECONDS = 0.5

_SENSEVOICE_LANGUAGES = ("auto", "zh", "yue", "en", "ja", "ko")
# What UniASR's beam search raises when its predictor counts no token at all, as in silence.
_NOTHING_HEARD = "Kernel size can't be greater than actual input size"


class FunasrBackend:
    """Fills the protocol of backend.py. Use one instance from one thread.

    Attributes:
        precision, device, most_rows, memory: see there; it computes in fp32 and takes segments one by one.
        vocabulary: grows with what is said.
        times_are_estimated: True while times are spread over the speech instead of computed by the model.
        longest_seconds: a longer segment is refused, as the model would drop its end; None without such a limit.
    """

    precision = "fp32"
    most_rows = 1
    pads = False

    def __init__(self, source: ModelFiles, model: Any, *, device: str, options: Mapping[str, Any]) -> None:
        self.device = device
        self.name = source.name
        self.kind = source.kind
        self.vocabulary = TextVocabulary()
        self.longest_seconds = next((e.longest_seconds for e in listing() if e.kind == source.kind), None)
        self.times_are_estimated = source.kind != SENSEVOICE
        self._asks_times = source.kind == SENSEVOICE
        self.memory = _memory(device)
        self._model = model
        self._options = dict(options)

    @classmethod
    def open(
        cls, wanted: Path | str | CatalogueEntry, *, device: str, threads: int, language: str | None = None
    ) -> FunasrBackend:
        """Loads a model from its files, which must be there.

        Args:
            wanted: an entry of the catalogue, a FunASR model directory, or a Whisper checkpoint (`.pt`).
            device: "cpu" or "cuda:N".
            language: what is spoken, for models that can be told (SenseVoice, Whisper); None leaves it to them.

        Raises:
            SourceError: files are missing, damaged, or not of a model that FunASR knows.
            ResourceError: a Python package is missing, or memory.
            DeviceError: the CUDA device is not there.
            InputError: a language the model does not know.
        """
        source = find_files(wanted)
        check_packages(source.kind)
        with _quiet(), _failures_named(device, "its start"):
            # Apart from the rest, as importing it changes the log level that keeps it quiet.
            import funasr  # noqa: F401
        _check_device(device)
        with _quiet(), _failures_named(device, f"loading {source.name}"):
            model = _build(source, device, threads)
        return cls(source, model, device=device, options=_options(source.kind, language))

    def prepare(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The samples themselves: FunASR makes its own features."""
        return samples

    def encode_hotwords(self, words: Sequence[Sequence[int]]) -> NoReturn:
        """Raises InputError: none of these models can be biased."""
        raise InputError(
            f"The model {self.name} has no hot words, and {len(words)} were given",
            fix="Leave --hotwords out, or use seaco-paraformer-large.",
        )

    def recognise(
        self, batch: Sequence[NDArray[np.float32]], hotwords: EncodedHotwords | None
    ) -> list[Recognition]:
        """Segments (samples each) one after the other.

        Raises:
            InputError: hot words, or a segment that is longer than the model can take.
            DeviceMemoryError, DeviceLostError: see backend.py.
            AsrError: FunASR failed on a segment; its own words are in the problem.
        """
        if hotwords is not None:
            self.encode_hotwords(hotwords.words)
        return [self._recognise_one(samples) for samples in batch]

    def release(self) -> None:
        """Gives cached memory back to the device. Raises DeviceLostError."""
        if self.device != "cpu":
            import torch

            with _failures_named(self.device, "giving memory back"):
                torch.cuda.empty_cache()

    def _recognise_one(self, samples: NDArray[np.float32]) -> Recognition:
        seconds = len(samples) / SAMPLE_RATE
        if self.longest_seconds is not None and seconds > self.longest_seconds:
            raise InputError(
                f"{self.name} takes at most {self.longest_seconds:g} s at once, this segment has {seconds:.1f} s",
                fix=f"Use --segment-seconds {self.longest_seconds:g} or less.",
            )
        answer = self._ask(samples)
        tokens = cut_line(str(answer.get("text") or ""))
        times = self._own_times(tokens, answer)
        if times is None:
            self.times_are_estimated = self.times_are_estimated or bool(tokens)
            times = spread(tokens, samples)
        times = np.clip(times, 0.0, seconds)
        return Recognition(
            self.vocabulary.ids(tokens), times[:, 0].astype(np.float32), times[:, 1].astype(np.float32)
        )

    def _ask(self, samples: NDArray[np.float32]) -> Mapping[str, Any]:
        """FunASR's answer for one segment, {} when it heard nothing."""
        padded = np.zeros(max(len(samples), round(SHORTEST_SECONDS * SAMPLE_RATE)), np.float32)
        padded[: len(samples)] = samples
        with _failures_named(self.device, f"{self.name} on a segment of {len(samples) / SAMPLE_RATE:.1f} s"):
            if not self._asks_times:
                return self._without_times(padded)
            try:
                return self._generate(padded, output_timestamp=True)
            except Exception as error:
                if _torch_failure(error):
                    raise
                # FunASR's alignment stumbles where its tokens read back differ; the text does not depend on it.
                return self._without_times(padded)

    def _without_times(self, samples: NDArray[np.float32]) -> Mapping[str, Any]:
        try:
            return self._generate(samples)
        except RuntimeError as error:
            if self.kind == UNIASR and _NOTHING_HEARD in str(error):
                return {}
            raise

    def _generate(self, samples: NDArray[np.float32], **more: Any) -> Mapping[str, Any]:
        # Names that it would take for files or URLs do not occur: the input is an array, the options are constants.
        with _quiet():
            answers = self._model.generate(input=samples, key="segment", **_fresh(self._options), **more)
        return answers[0] if answers else {}

    def _own_times(self, tokens: Sequence[str], answer: Mapping[str, Any]) -> NDArray[np.float64] | None:
        """The model's times in seconds (n, 2), where it gives some that fit its text."""
        stamps = answer.get("timestamp")
        if not tokens or not isinstance(stamps, list) or not stamps:
            return None
        words = answer.get("words") or str(answer.get("text") or "").split()
        times = align(tokens, words, stamps)
        return None if times is None else times / 1000


def fetch_model(wanted: CatalogueEntry, progress: Callable[[str], None]) -> Path:
    """Downloads the files of a model that FunASR runs to where `open` looks for them; a second call finds them.

    Raises:
        SourceError: the place cannot be reached, or gave other bytes than it should.
        ResourceError: no room on the disk, or the package that downloads is missing.
    """
    if wanted.kind != WHISPER:
        return hub.fetch(wanted.source, models_directory(), progress)
    check_packages(wanted.kind)
    with _quiet():
        import whisper
    target = models_directory() / wanted.name
    progress(f"downloading OpenAI's checkpoint {wanted.source} into {target}")
    try:
        whisper.load_model(wanted.source, device="cpu", download_root=str(target))
    except (OSError, RuntimeError) as error:
        raise SourceError(
            f"OpenAI's checkpoint {wanted.source} was not fetched ({_first_line(error)})",
            fix=f"Check the network and try again, or copy {wanted.source}.pt into {target} by hand.",
        ) from error
    return target


def _memory(device: str) -> DeviceMemory:
    if device == "cpu":
        return HostMemory()
    import torch

    from app.asr.torch_backend import CudaMemory

    return CudaMemory(torch.device(device))


def _check_device(device: str) -> None:
    """Raises DeviceError when it is not there: AutoModel would go on with the CPU without a word."""
    if device == "cpu":
        return
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not device.startswith("cuda:") or not device[5:].isdecimal() or int(device[5:]) >= count:
        raise DeviceError(
            f"There is no device {device}: torch sees {count} CUDA devices", fix="Use --device cpu or auto."
        )


def _build(source: ModelFiles, device: str, threads: int) -> Any:
    """AutoModel on local files, with everything forbidden that a configuration could ask for beside the model."""
    from funasr import AutoModel

    options: dict[str, Any] = {
        "model": str(source.path),
        "model_path": str(source.path),  # so that it never looks for a hub
        "device": device,
        "ncpu": threads,
        "disable_update": True,
        "disable_pbar": True,
        "log_level": "ERROR",
        "trust_remote_code": False,
        "vad_model": None,
        "punc_model": None,
        "spk_model": None,
        "output_dir": None,
        "fp16": False,
        "bf16": False,
    }
    if source.kind == WHISPER:
        options |= {"hub": "openai"}
    else:
        options |= {"hub": "ms", "init_param": None}
    if source.frontend in ("WavFrontend", "wav_frontend"):
        options["frontend_conf"] = {"dither": 0.0}
    try:
        model = AutoModel(**options)
        if source.weights is not None:
            _load_weights(model.model, source.weights)
    except (AsrError, MemoryError, ModuleNotFoundError):
        raise
    except Exception as error:
        if _torch_failure(error):
            raise
        raise _explained(source, error) from error
    return model


def _load_weights(network: Any, checkpoint: Path) -> None:
    """Fills a network. FunASR's own loader holds three copies of the weights, and leaves those at random it misses.

    Raises:
        SourceError: weights are missing; Exception of any kind: the file is damaged or of another shape.
    """
    import torch

    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # files of old versions cannot be mapped
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for wrapping in ("state_dict", "model_state_dict", "model"):
        state = state.get(wrapping, state)
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    found = network.load_state_dict(state, strict=False)
    missing = {name for name, _ in network.named_parameters()}.intersection(found.missing_keys)
    if missing:
        raise SourceError(
            f"{checkpoint} lacks weights of {type(network).__name__} ({', '.join(sorted(missing)[:3])})",
            fix="Fetch the model's files again.",
        )
    loaded = getattr(
        network, "on_pretrained_model_loaded", None
    )  # some of FunASR's classes finish their set-up here
    if callable(loaded):
        loaded(frozenset(state) - set(found.unexpected_keys))


def _explained(source: ModelFiles, error: Exception) -> AsrError:
    """What went wrong while FunASR built a model, in our words."""
    import funasr

    for reason in funasr.get_import_errors().values():
        # A module that could not be imported has not registered its model.
        found = re.search(r"No module named '([\w.]+)'", reason)
        if "is not registered" in str(error) and found and source.kind.lower() in reason.lower():
            return missing_package(found[1])
    return SourceError(
        f"FunASR cannot load {source.path} as {source.kind} ({_first_line(error)})",
        fix="Fetch the model's files again; if that does not help, they are of another version of FunASR.",
    )


def _options(kind: str, language: str | None) -> dict[str, Any]:
    """What every call is told."""
    if kind == SENSEVOICE:
        _check_language(kind, language, _SENSEVOICE_LANGUAGES)
        return {"language": language or "auto", "use_itn": True}
    if kind == WHISPER:
        with _quiet():
            from whisper.tokenizer import LANGUAGES
        _check_language(kind, language, tuple(LANGUAGES))
        return {"DecodingOptions": {"language": language, "fp16": False, "without_timestamps": True}}
    _check_language(kind, language, ())
    return {}


def _check_language(kind: str, language: str | None, known: Sequence[str]) -> None:
    if language is not None and language not in known:
        raise InputError(
            f"{kind} cannot be told to expect the language {language!r}",
            fix=f"It knows {', '.join(known)}." if known else "Leave the language out.",
        )


def _fresh(options: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that FunASR may keep and change."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in options.items()}


@contextlib.contextmanager
def _failures_named(device: str, work: str) -> Iterator[None]:
    """Turns what FunASR raises into our errors."""
    try:
        yield
    except AsrError:
        raise
    except ModuleNotFoundError as error:
        raise missing_package(error.name or str(error)) from error
    except Exception as error:
        said = _first_line(error)
        if _torch_failure(error) is DeviceMemoryError:
            raise DeviceMemoryError(
                f"{device} has not enough memory for {work} ({said})",
                fix="Use shorter segments (--segment-seconds 10), or stop other programs.",
            ) from error
        if _torch_failure(error) is DeviceLostError:
            raise DeviceLostError(
                f"{device} failed ({said})",
                fix="Start again; if it fails again, look for Xid lines in the kernel log, or use --device cpu.",
            ) from error
        raise AsrError(
            f"FunASR failed at {work} ({said})",
            fix="Try shorter segments (--segment-seconds 10); if that does not help, use another model.",
        ) from error


def _torch_failure(error: Exception) -> type[AsrError] | None:
    import torch

    said = str(error)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in said:
        return DeviceMemoryError
    if isinstance(error, RuntimeError) and any(part in said for part in ("CUDA", "cuDNN", "CUBLAS")):
        return DeviceLostError
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what FunASR prints from standard output, where results go, and its logging from changing ours."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
