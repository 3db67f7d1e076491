"""Examples of a document: read from its code blocks, run, and held to the answers that stand below them.

In a block named `console`, `$ ` begins a command and what follows is its answer; in one named `python`, a comment says
what is printed. Blanks and line breaks do not count, and `…` stands for anything.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HOLE = "…"


@dataclass(frozen=True)
class Example:
    """A command of the shell or a program in Python, and what it answers."""

    command: str
    answer: str
    is_python: bool = False


def examples_of(page: str) -> list[Example]:
    """Everything that can be run, in the order of the page."""
    found: list[Example] = []
    for language, block in re.findall(r"^```(console|python)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if language == "python":
            printed = "\n".join(re.findall(r"(?:^|  )\s*# (.+)$", block, re.MULTILINE))
            found.append(Example(block, printed, is_python=True))
            continue
        first, *steps = re.split(r"^\$ ", block, flags=re.MULTILINE)
        assert not first.strip(), f"a block that does not begin with a command: {first[:60]!r}"
        for step in steps:
            command = re.match(r"(?:.*\\\n)*.*\n", step)
            assert command is not None, step
            found.append(Example(command[0].strip(), step[command.end() :].strip()))
    return found


def fits(answer: str, expected: str) -> bool:
    """Whether an answer is what the page says."""
    squeezed = re.sub(r"\s+", "", expected)
    pattern = ".*".join(map(re.escape, squeezed.split(HOLE)))
    return re.fullmatch(pattern, re.sub(r"\s+", "", answer), re.DOTALL) is not None


class Shell:
    """Runs examples one after the other.

    Args:
        folder: where commands run.
        words: what stands in the page -> what it is here, such as addresses.
        python: the interpreter for programs.
    """

    def __init__(self, folder: Path, words: Mapping[str, str], python: str) -> None:
        self._folder, self._words, self._python = folder, dict(words), python

    def learn(self, word: str, meaning: str) -> None:
        """From here on `word` of the page means that."""
        self._words[word] = meaning

    def run(self, example: Example, seconds: float = 60.0) -> str:
        """What it prints; a failure carries standard error."""
        text = example.command
        for word, meaning in self._words.items():
            text = text.replace(word, meaning)
        command = [self._python, "-c", text] if example.is_python else ["bash", "-euc", text]
        done = subprocess.run(
            command, cwd=self._folder, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout
