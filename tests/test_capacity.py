"""`doctor --capacity`: the speed that is measured, the capacity model that is asked, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app import capacity, doctor
from app.asr.engine import EngineOptions
from app.asr.errors import AsrError, InputError, ResourceError
from app.cli import main
from app.doctor import check_capacity


def picker(folder: Path, body: str) -> Path:
    script = folder / "picker.py"
    script.write_text(f"import sys\n{body}\n", encoding="utf-8")
    return script


def answer(*, saturated: bool) -> dict[str, Any]:
    level: dict[str, Any] = {"hours_per_day": 500.0, "load": 0.5, "asked": False, "saturated": False}
    level["wait_seconds"] = {"mean": 1.25, "standard_error": 0.1, "within_95_percent": 6.0}
    asked = {
        **level,
        "hours_per_day": 2000.0,
        "load": 2.0,
        "asked": True,
        "saturated": True,
        "wait_seconds": None,
    }
    levels = [level, {**level, "hours_per_day": 800.0, "load": 0.8}, *([asked] if saturated else [])]
    return {"most_hours_per_day": 1000.0, "levels": levels, "speeds": ["this host: RTF 0.1, measured there"]}


def test_the_model_is_asked_with_what_was_measured_and_wanted(tmp_path: Path) -> None:
    script = picker(tmp_path, "import json; print(json.dumps({'given': sys.argv[1:]}))")
    given = ["--capacity", "--json"]
    assert capacity.ask(None, None, script) == {"given": given}
    assert capacity.ask(0.5, 30.0, script) == {"given": [*given, "--rtf", "0.5", "--load", "30.0"]}


def test_a_model_that_cannot_tell_is_repeated(tmp_path: Path) -> None:
    script = picker(tmp_path, "sys.exit(sys.stderr.write('no speed is known.\\nMeasure it.\\n') and 2)")
    with pytest.raises(InputError) as raised:
        capacity.ask(None, None, script)
    assert (raised.value.problem, raised.value.fix) == ("no speed is known", "Measure it.")


def test_an_image_without_the_model_says_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as raised:
        capacity.ask(None, None, tmp_path / "nowhere.py")
    assert "images leave it out" in raised.value.problem and "pick_variant.py --capacity" in raised.value.fix


def test_a_model_that_does_not_end_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "_LIMIT_SECONDS", 0.2)
    with pytest.raises(ResourceError, match="did not answer"):
        capacity.ask(None, None, picker(tmp_path, "import time; time.sleep(60)"))


def test_the_speed_is_measured_on_the_shipped_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AsrError):
        capacity.measured_rtf(EngineOptions(str(tmp_path / "no-pack")))
    # The real one takes three minutes of audio; a short one shows the same here.
    monkeypatch.setattr(capacity, "RECORDING", capacity.RECORDING.parent / "command-1.flac")
    assert capacity.measured_rtf(EngineOptions("demo", device="cpu")) > 0


def test_the_doctor_tells_the_load_asked_for_or_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "ask", lambda rtf, load: answer(saturated=load is not None))
    usual = check_capacity(None, None)
    assert usual.verdict == "ok" and usual.readings["most_hours_per_day"] == 1000.0
    assert "1,000 hours of audio a day at most" in usual.found and "800 hours are 80%: 1.2 s" in usual.found
    too_much = check_capacity(None, 2000.0)
    assert (
        too_much.verdict == "warn" and "2,000 hours are 200%: too much" in too_much.found and too_much.remedy
    )


def test_a_model_is_measured_before_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float | None, float | None]] = []

    def ask(rtf: float | None, load: float | None) -> dict[str, Any]:
        asked.append((rtf, load))
        return answer(saturated=False)

    monkeypatch.setattr(capacity, "measured_rtf", lambda options: {"demo": 0.25}[options.model])
    monkeypatch.setattr(capacity, "ask", ask)
    check_capacity(EngineOptions("demo"), 40.0)
    check_capacity(None, None)
    assert asked == [(0.25, 40.0), (None, None)]


def test_what_cannot_be_told_is_a_warning_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(rtf: float | None, load: float | None) -> dict[str, Any]:
        raise InputError("the speed is not known", fix="Measure it.")

    monkeypatch.setattr(capacity, "ask", refuse)
    check = check_capacity(None, None)
    assert (check.verdict, check.found, check.remedy) == ("warn", "the speed is not known", "Measure it.")


def test_the_options_reach_the_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: iter(()))
    monkeypatch.setattr(capacity, "ask", lambda rtf, load: answer(saturated=load is not None))
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checks"] == []
    assert main(["doctor", "--json", "--capacity"]) == 0
    assert json.loads(capsys.readouterr().out)["checks"][0]["readings"] == answer(saturated=False)
    assert main(["doctor", "--load", "2000"]) == 0
    assert "too much" in capsys.readouterr().out
    for wrong in ("0", "-1", "many", "nan", "inf"):
        assert main(["doctor", "--load", wrong]) == 1
        assert repr(wrong) in capsys.readouterr().err


def test_the_real_model_answers() -> None:
    found = capacity.ask(0.5, 10.0)
    assert found["capacity_version"] == 1 and found["speeds"] == ["this host: RTF 0.5, measured there"]
    assert [one["hours_per_day"] for one in found["levels"] if one["asked"]] == [10.0]
