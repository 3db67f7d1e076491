"""`make demo`: the command line at work on the shipped recordings, with the shipped model.

Each step prints the command it runs, runs it as a user would, and compares the answer with what was spoken.
Nothing is fetched; results go to build/demo. Which recordings there are, and what is said in them, is in
recordings/recordings.json. The model knows only a small closed vocabulary of synthetic speech.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RECORDINGS = Path(__file__).resolve().parent / "recordings"
RESULTS = Path("build/demo")
SHOWN_CUES = 4
# Without hot words every third character of a name is another one that sounds the same.
MOST_WRONG = 0.35


class DemoError(Exception):
    """A step of the demo failed; its command has told why."""


@dataclass(frozen=True)
class Recording:
    """One shipped file: where it is, what is said in it, and the hot words that belong to it."""

    path: Path
    text: str
    hotwords: tuple[str, ...]
    shows: str


def load_recordings(directory: Path = RECORDINGS) -> dict[str, Recording]:
    """Read recordings.json; the key is the file name without its ending."""
    listed = json.loads((directory / "recordings.json").read_text(encoding="utf-8"))["recordings"]
    made = [
        Recording(directory / row["file"], row["text"], tuple(row["hotwords"]), row["shows"])
        for row in listed
    ]
    return {recording.path.stem: recording for recording in made}


def transcribe(*arguments: str | Path) -> str:
    """Run `python -m app transcribe`, show it as typed, and return what it printed.

    Raises:
        DemoError: it did not end well.
    """
    words = ["transcribe", *map(_as_typed, arguments)]
    print(f"\n$ python -m app {shlex.join(words)}", flush=True)
    command = [sys.executable, "-m", "app", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise DemoError(f"The command ended with {done.returncode}; its message is above.")
    return done.stdout


def _as_typed(argument: str | Path) -> str:
    path = Path(argument)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(argument)


def characters(text: str) -> str:
    """What was recognised, without line ends, file headings and spaces."""
    lines = (line for line in text.splitlines() if not line.startswith("==> "))
    return "".join(character for line in lines for character in line if not character.isspace())


def distance(heard: Sequence[str], spoken: Sequence[str]) -> int:
    """Fewest insertions, deletions and replacements that make one of the other."""
    row = list(range(len(spoken) + 1))
    for line, ours in enumerate(heard, 1):
        before, row[0] = row[0], line
        for column, theirs in enumerate(spoken, 1):
            before, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, before + (ours != theirs)),
            )
    return row[-1]


def compare(heard: str, spoken: str) -> None:
    """Say how far the answer is from what was spoken.

    Raises:
        DemoError: so far that the program or the model cannot be sound.
    """
    wrong = distance(characters(heard), spoken)
    print(f"  -> {wrong} of {len(spoken)} characters differ from what was spoken", flush=True)
    if wrong > len(spoken) * MOST_WRONG:
        raise DemoError("That is not what was spoken: this copy is damaged. Clone it again, or report it.")


def show_commands(recordings: dict[str, Recording]) -> None:
    chosen = [recording for name, recording in recordings.items() if name.startswith("command")]
    print("1. Short commands")
    heard = transcribe(*(recording.path for recording in chosen))
    compare(heard, "".join(recording.text for recording in chosen))


def show_hotwords(recording: Recording) -> None:
    print("\n2. Names that sound like commoner ones: without hot words, then with them")
    counts = []
    for hotwords in ("off", "，".join(recording.hotwords)):
        heard = transcribe(recording.path, "--hotwords", hotwords)
        counts.append(sum(word in characters(heard) for word in recording.hotwords))
        print(f"  -> {counts[-1]} of {len(recording.hotwords)} names right")
        compare(heard, recording.text)
    if counts[1] <= counts[0]:
        raise DemoError(
            "The hot words made no difference: this copy is damaged. Clone it again, or report it."
        )


def show_subtitles(recording: Recording) -> None:
    print("\n3. A meeting of three minutes, as subtitles")
    transcribe(recording.path, "--format", "srt", "--output", RESULTS)
    written = RESULTS / f"{recording.path.stem}.srt"
    cues = written.read_text(encoding="utf-8").strip().split("\n\n")
    print(f"\n{written}: {len(cues)} cues, the first {min(SHOWN_CUES, len(cues))}:\n")
    print("\n\n".join(cues[:SHOWN_CUES]))
    compare("\n".join(line for cue in cues for line in cue.splitlines()[2:]), recording.text)


def main() -> int:
    recordings = load_recordings()
    print("Everything here is generated speech, and the demo model knows only the small closed vocabulary")
    print("of such sentences: it shows how the program works, not how well a full model hears.\n", flush=True)
    try:
        show_commands(recordings)
        show_hotwords(recordings["names"])
        show_subtitles(recordings["meeting"])
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    print("\nYour own recordings need the full model: see README.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
