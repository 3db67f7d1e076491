"""An engine without a model: it says what it is told to, and records what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from app.asr.engine import NO_GPU, NO_PUNCTUATION, EngineOptions
from app.asr.hotwords import HotwordSet
from app.asr.tokens import Vocabulary, Word
from app.asr.transcript import Utterance

FAKE_VOCABULARY = Vocabulary(["<blank>", "<s>", "</s>", *"今天张三开会阿里巴", "new", "york", "<unk>"])


def spoken(start: float, *texts: str) -> Utterance:
    """An utterance of words of 0.2 s each, 0.25 s apart."""
    words = tuple(Word(text, start + n * 0.25, start + n * 0.25 + 0.2) for n, text in enumerate(texts))
    return Utterance(start, start + len(texts) * 0.25, words)


def marked(utterance: Utterance, marks: Mapping[int, str]) -> Utterance:
    """The same with punctuation behind some words, by their place."""
    words = (word._replace(mark=marks.get(place, "")) for place, word in enumerate(utterance.words))
    return utterance._replace(words=tuple(words))


@dataclass
class FakeTranscription:
    """Gives utterances; an exception among them is raised in its place, a function is called."""

    script: Sequence[Utterance | BaseException | Callable[[], None]]
    audio_seconds: float = 10.0
    elapsed_seconds: float = 2.0
    rtf: float = 0.2
    progress: tuple[float, float | None] = (0.0, 10.0)
    notes: Sequence[str] = ()

    def __iter__(self) -> Iterator[Utterance]:
        for step in self.script:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, Utterance):
                self.progress = (step.end, 10.0)
                yield step
            else:
                step()


@dataclass
class FakeEngine:
    """Scripts by file name; `default` for all others."""

    scripts: Mapping[str, FakeTranscription | BaseException] = field(default_factory=dict)
    default: FakeTranscription = field(
        default_factory=lambda: FakeTranscription([spoken(0.0, "今", "天"), spoken(1.0, "开", "会")])
    )
    model: str = "fake"
    precision: str = "int8"
    device: str = "cpu"
    reasons: Sequence[str] = (NO_GPU,)
    device_peak_bytes: int | None = None
    vocabulary: Vocabulary = FAKE_VOCABULARY
    punctuation: str = NO_PUNCTUATION
    options: EngineOptions | None = None
    asked: list[tuple[Path, HotwordSet | None]] = field(default_factory=list)
    closed: bool = False

    def factory(self, options: EngineOptions) -> FakeEngine:
        """What the command line calls to open an engine."""
        self.options = options
        return self

    def transcribe(self, source: Path, hotwords: HotwordSet | None = None) -> FakeTranscription:
        self.asked.append((source, hotwords))
        script = self.scripts.get(source.name, self.default)
        if isinstance(script, BaseException):
            raise script
        return script

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.closed = True
