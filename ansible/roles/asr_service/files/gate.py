"""Does the service transcribe the golden clip right? Waits until it does, or says why it will not.

Runs on a host of the fleet: standard library only, Python 3.8. The clip and its text come from the pack; punctuation
and blanks do not count. A container that keeps ending is not waited for.

    gate.py --url http://10.0.0.11:8000 --pack /opt/asr/packs/... --key-file ... --seconds 600 [--container asr_asr-0_1]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid

PAUSE_S = 1.0
MOST_RESTARTS = 3


class NotYetError(Exception):
    """It may still come right."""


class WrongError(Exception):
    """Waiting will not help."""


def letters(text: str) -> str:
    return "".join(character for character in text if character.isalnum()).lower()


def first_key(path: str) -> str | None:
    if not path:
        return None
    with open(path, encoding="utf-8") as file:
        keys = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    return keys[0] if keys else None


def golden(pack: str) -> tuple[bytes, str]:
    """The clip as bytes, and its text."""
    with open(os.path.join(pack, "manifest.json"), encoding="utf-8") as file:
        text = json.load(file)["golden"]["text"]
    with open(os.path.join(pack, "golden.wav"), "rb") as file:
        return file.read(), text


def opened(request: urllib.request.Request, seconds: float) -> bytes:
    """The answer's body. The proxy settings of this host must not decide."""
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with plain.open(request, timeout=seconds) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        told = error.read(400).decode("utf-8", "replace")
        if error.code in (401, 403):
            raise WrongError(f"it refuses the key ({error.code}): {told}") from None
        raise NotYetError(f"it answers {error.code}: {told}") from None
    except (OSError, ValueError) as error:
        raise NotYetError("it does not answer: {}".format(getattr(error, "reason", error))) from None


def transcribe(url: str, clip: bytes, key: str | None) -> str:
    boundary = uuid.uuid4().hex
    parts = []
    for name, value in (("model", "whisper-1"), ("response_format", "json")):
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        )
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="golden.wav"\r\n\r\n'
    body = b"".join(parts) + head.encode() + clip + f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(
        url + "/v1/audio/transcriptions", data=body, headers=headers, method="POST"
    )
    try:
        return str(json.loads(opened(request, 120))["text"])
    except (ValueError, KeyError, TypeError):
        raise NotYetError("its answer is not a transcript") from None


def docker(*arguments: str) -> str:
    """What Docker says, its complaints included; empty when it fails."""
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return "" if done.returncode else done.stdout.decode("utf-8", "replace").strip()


def exit_codes(container: str) -> list[str]:
    """With which codes it ended lately. A container that is starting again shows 0 as its own."""
    what = ("--filter", f"container={container}", "--filter", "event=die")
    form = '{{index .Actor.Attributes "exitCode"}}'
    return docker("events", "--since", "1h", "--until", "0s", *what, "--format", form).split()


def look_at(container: str) -> None:
    fields = docker("inspect", "--format", "{{.RestartCount}} {{.State.Status}}", container).split()
    if len(fields) != 2:
        raise WrongError(f"there is no container {container}")
    count, state = int(fields[0]), fields[1]
    if count >= MOST_RESTARTS or state in ("exited", "dead"):
        code = (exit_codes(container) or ["unknown"])[-1]
        words = docker("logs", "--tail", "3", container)
        raise WrongError(
            f"its container ended {max(count, 1)} times (exit code {code}); its last words: {words}"
        )


def attempt(arguments: argparse.Namespace, clip: bytes, text: str, key: str | None) -> None:
    if arguments.container:
        look_at(arguments.container)
    opened(urllib.request.Request(arguments.url + "/readyz"), 10)
    heard = transcribe(arguments.url, clip, key)
    if letters(heard) != letters(text):
        raise WrongError(f"it transcribes the golden clip as {heard!r}; right is {text!r}")


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--url", "--pack"):
        parser.add_argument(name, required=True)
    parser.add_argument("--key-file", default="")
    parser.add_argument("--container", default="")
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    try:
        clip, text = golden(arguments.pack)
        key = first_key(arguments.key_file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"The pack or the key cannot be read: {error}")
        return 1
    give_up = time.monotonic() + arguments.seconds
    while True:
        try:
            attempt(arguments, clip, text, key)
        except NotYetError as reason:
            if time.monotonic() >= give_up:
                print(f"{arguments.url} did not pass within {arguments.seconds:.0f} s: {reason}")
                return 1
            time.sleep(PAUSE_S)
        except WrongError as reason:
            print(f"{arguments.url} did not pass: {reason}")
            return 1
        else:
            print(f"{arguments.url} transcribes the golden clip right")
            return 0


if __name__ == "__main__":
    sys.exit(main())
