"""What looks like a secret in a text: private keys, tokens of known services, random words beside key, secret, token.

Read by tests/test_secrets.py for the tree, and by scan_image.py for images. Standard library only.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

# Put together here, so that this file does not find itself.
PRIVATE_KEY = re.compile("-----BEGIN " + r"(?:[A-Z0-9]+ )*PRIVATE KEY-----")
KNOWN_TOKENS = re.compile(
    r"\b(?:AKIA[0-9A-Z]{16}|gh[opsur]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,}"
    r"|sk-[\w-]{32,}|xox[abprs]-[\w-]{20,}|AIza[\w-]{35}|eyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{10,})"
)
NEAR = re.compile(r"key|secret|token|passw|credential|authorization|bearer", re.IGNORECASE)
WORD = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")
# Bits a character. Random hexadecimal digits have 3.6 to 4 in words of this length, base64 has more, names have a
# vocabulary of their own and few digits.
LEAST_ENTROPY = 3.3
LEAST_DIGITS = 3


def entropy(word: str) -> float:
    """Bits a character, from the word's own letters."""
    return -sum(n / len(word) * math.log2(n / len(word)) for n in Counter(word).values())


def secrets_in(text: str) -> Iterator[tuple[int, str]]:
    """Line and word of everything that looks like a secret."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern in (PRIVATE_KEY, KNOWN_TOKENS):
            yield from ((number, found[0]) for found in pattern.finditer(line))
        if NEAR.search(line):
            yield from ((number, found[0]) for found in WORD.finditer(line) if is_random(found[0]))


def is_random(word: str) -> bool:
    digits = sum(letter.isdigit() for letter in word)
    return digits >= LEAST_DIGITS and not word.isdigit() and entropy(word) >= LEAST_ENTROPY
