"""How much audio a host or a fleet transcribes a day: sums, loads, bottlenecks, words, and what is refused."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.asr.engine import DEFAULT_JOIN_SECONDS
from app.service.scheduler import IN_FLIGHT
from app.service.settings import Settings
from scripts import pick_variant
from scripts.picking import capacity
from scripts.picking.capacity import PER_FILE_AUDIO, Capacity, capacity_of
from scripts.picking.errors import InputError
from scripts.picking.fleet import FleetPlan, load_fleet, row_of
from scripts.picking.host import load_host
from scripts.picking.load import DEFAULT_FILES, Files, files_of, poisson
from scripts.picking.plan import plan
from scripts.picking.simulation import Rules
from tests.support.hosts import CAPTURES, TABLE

ROOT = Path(__file__).resolve().parents[3]
MINUTE = Files((60.0,), (1.0,))
FEW = 2_000  # files of a run, where the figures themselves do not matter


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "_COUNT", FEW)


def fleet_of(*rows: tuple[str, int, float | None]) -> FleetPlan:
    """Hosts of a capture, how many, and their measured RTF."""
    made = []
    for capture, count, rtf in rows:
        host = load_host(CAPTURES / f"{capture}.json")
        made.append(row_of(capture, count, host, plan(host, TABLE), rtf))
    return FleetPlan(tuple(made), None)


def one_host(rtf: float = 0.1, load: float | None = None) -> Capacity:
    return capacity_of(fleet_of(("cpu-2g", 1, rtf)), MINUTE, load, Rules(connections=None))


def most_of(*rows: tuple[str, int, float | None], rules: Rules | None = None) -> Capacity:
    return capacity_of(fleet_of(*rows), MINUTE, None, rules or Rules())


def test_the_rules_are_those_of_the_service_and_of_the_gateway() -> None:
    rules, settings = Rules(), Settings.model_fields
    gateway = yaml.safe_load((ROOT / "ansible/roles/gateway/defaults/main.yml").read_text(encoding="utf-8"))
    assert rules.segment == DEFAULT_JOIN_SECONDS and rules.in_flight == IN_FLIGHT
    assert rules.queue == settings["queue_seconds"].default
    assert rules.connections == gateway["gateway_max_connections"]


@pytest.mark.usefixtures("short_runs")
def test_the_most_is_a_day_over_what_a_minute_takes() -> None:
    found = one_host(rtf=0.1)
    assert found.most == pytest.approx(24 * 60 / (0.1 * (60 + PER_FILE_AUDIO)))
    assert [round(one.load, 2) for one in found.levels] == [0.5, 0.8, 0.95]
    waits = [one.wait.mean for one in found.levels if one.wait is not None]
    assert waits == sorted(waits) and len(waits) == 3


def test_at_half_load_the_wait_is_that_of_a_queue_and_within_it() -> None:
    """Files of a minute in four turns each: at least M/D/1's wait, at most that of shared processors."""
    level = one_host(rtf=0.1).levels[0]
    alone = 0.1 * (60 + PER_FILE_AUDIO)
    assert level.wait is not None and level.answer is not None
    slack = 4 * level.wait.error
    assert 0.5 * alone - slack < level.wait.mean < alone + slack
    assert level.answer.mean == pytest.approx(level.wait.mean + alone)
    assert level.busy["cpu-2g"] == pytest.approx(0.5, rel=0.02)
    assert level.wait.p95 > level.wait.mean > 0


def test_times_leave_out_the_beginning_and_tell_how_sure_they_are() -> None:
    """The first fifth is from an empty fleet; the error is that of a mean of twenty means."""
    settled = [float(1 + place % 2) for place in range(20) for _ in range(4)]
    found = capacity._times([100.0] * 20 + settled)
    assert found.mean == 1.5 and found.p95 == 2.0
    assert found.error == pytest.approx(statistics.stdev([1.0, 2.0] * 10) / 20**0.5)


@pytest.mark.usefixtures("short_runs")
def test_a_load_above_the_most_is_saturated_and_said_to_be() -> None:
    most = one_host().most
    found = one_host(load=4 * most)
    asked = found.levels[-1]
    assert asked.asked and asked.saturated and asked.wait is None
    assert asked.refused == pytest.approx(0.75)
    text = capacity.as_text(found)
    assert (
        "saturate it: 400% of the most" in text and "75% of the audio is not done" in text and "grows" in text
    )
    below = one_host(load=0.9 * most).levels
    assert [one.asked for one in below] == [False, False, True, False] and not any(
        one.saturated for one in below
    )


@pytest.mark.usefixtures("short_runs")
def test_a_fleet_adds_up_and_counts_what_it_does_not_know() -> None:
    one = most_of(("cpu-2g", 1, None))
    found = most_of(("cpu-2g", 3, None), ("two-cards", 2, None), ("no-sse42", 1, None))
    assert found.most == pytest.approx(3 * one.most) and found.instances == 3 and found.unknown == 4
    assert "Not counted: 4 instances" in capacity.as_text(found)
    both = most_of(("cpu-2g", 3, None), ("two-cards", 2, 0.012))
    assert both.most == pytest.approx((3 + 4 * 2) * one.most), "two instances on each host with two cards"


@pytest.mark.usefixtures("short_runs")
def test_slow_hosts_of_a_mixed_fleet_are_the_busy_ones() -> None:
    """The gateway counts connections, not speed."""
    found = most_of(("cpu-2g", 2, 0.1), ("cpu-4g", 2, 0.01))
    busy = found.levels[1].busy
    assert found.busiest == "cpu-2g" and busy["cpu-2g"] > busy["cpu-4g"]
    assert "cpu-2g are busy most" in capacity.as_text(found)


@pytest.mark.usefixtures("short_runs")
def test_more_instances_than_connections_make_the_gateway_the_bottleneck() -> None:
    few = most_of(("cpu-2g", 6, None), rules=Rules(connections=3))
    assert few.at_gateway and few.most == pytest.approx(most_of(("cpu-2g", 3, None)).most)
    levels = [one for one in few.levels if one.wait is not None]
    assert [one.connections for one in levels] == pytest.approx([1.5, 2.4, 2.85], rel=0.1)
    assert "gateway_max_connections" in capacity.as_text(few)
    asked = capacity_of(fleet_of(("cpu-2g", 6, None)), MINUTE, 3 * few.most, Rules(connections=3))
    assert "wait before the gateway until clients give up" in capacity.as_text(asked)
    assert not most_of(("cpu-2g", 3, None), rules=Rules(connections=3)).at_gateway


@pytest.mark.parametrize(
    ("rows", "load", "problem", "fix"),
    [
        ([("two-cards", 1, None)], None, "the speed of no instance is known", "--rtf"),
        ([("riscv", 3, None)], None, "nothing can run", "leave --capacity out"),
        ([("cpu-2g", 20_001, None)], None, "20001 instances", "a tenth"),
        ([("cpu-2g", 1, None)], -1.0, "not above 0", "such as 200"),
        ([("cpu-2g", 1, None)], float("nan"), "not above 0", "such as 200"),
    ],
)
def test_what_cannot_be_answered_says_why_and_what_to_do(
    rows: list[tuple[str, int, float | None]], load: float | None, problem: str, fix: str
) -> None:
    with pytest.raises(InputError) as raised:
        capacity_of(fleet_of(*rows), MINUTE, load, Rules())
    assert problem in raised.value.problem and fix in raised.value.fix


@pytest.mark.usefixtures("short_runs")
def test_the_command_answers_for_a_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "fleet.json"
    hosts = [{"name": "office", "facts": str(CAPTURES / "cpu-2g.json"), "count": 4}]
    data = {"fleet_version": 1, "audio_hours_per_day": 100, "hosts": hosts}
    file.write_text(json.dumps(data), encoding="utf-8")
    assert load_fleet(file, TABLE).demand == 100

    def asked(*more: str) -> Any:
        assert pick_variant.main(["--fleet", str(file), *more, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    found = asked("--capacity")
    assert found["capacity_version"] == 1 and found["simulated"] is True and found["instances"] == 4
    assert [one["hours_per_day"] for one in found["levels"] if one["asked"]] == [100]
    assert found["levels"][0]["wait_seconds"].keys() == {"mean", "standard_error", "within_95_percent"}
    assert found == asked("--capacity"), "the same again"
    assert asked("--load", "50")["levels"][0]["hours_per_day"] == 50, "before the file's"
    assert asked("--capacity", "--connections", "2")["bottleneck"] == "gateway connections"
    assert asked("--capacity", "--files", "3600")["files"] == [{"seconds": 3600, "share": 1}]


@pytest.mark.usefixtures("short_runs")
def test_the_command_answers_for_one_host(capsys: pytest.CaptureFixture[str]) -> None:
    facts = ["--facts", str(CAPTURES / "two-cards.json")]
    assert pick_variant.main([*facts, "--capacity"]) == 2
    assert "Measure it there" in capsys.readouterr().err
    assert pick_variant.main([*facts, "--rtf", "0.01", "--load", "10"]) == 0
    assert "2 instances" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--rtf", "0"], "--rtf"),
        (["--rtf", "inf"], "--rtf"),
        (["--connections", "0"], "--connections"),
        (["--files", "x"], "--files"),
    ],
)
def test_options_that_cannot_be_used_end_with_two(
    given: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pick_variant.main(["--facts", str(CAPTURES / "cpu-2g.json"), "--capacity", *given]) == 2
    told = capsys.readouterr()
    assert problem in told.err and told.err.count("\n") == 2 and told.out == ""


def test_files_are_read_with_their_weights() -> None:
    found = files_of("60, 30:3 ,1.5:0.5")
    assert found == Files((60.0, 30.0, 1.5), (1.0, 3.0, 0.5))
    assert found.mean == pytest.approx((60 + 90 + 0.75) / 4.5) and sum(found.shares) == pytest.approx(1)
    assert files_of(DEFAULT_FILES).mean == pytest.approx(86.6, abs=0.1)


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "60:0", "60:", ":3", "60;30", "1e3", "nan", "604801", "60,,30"]
)
def test_files_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError) as raised:
        files_of(text)
    assert repr(text) in raised.value.problem and DEFAULT_FILES in raised.value.fix


def test_arrivals_come_at_the_rate_in_the_mix_and_again_alike() -> None:
    files = Files((10.0, 100.0), (3.0, 1.0))
    sent = list(poisson(files, 2.0, 40_000, 5))
    gaps = [after - before for (before, _), (after, _) in itertools.pairwise(sent)]
    error = statistics.stdev(gaps) / len(gaps) ** 0.5
    assert abs(statistics.fmean(gaps) - 0.5) < 4 * error
    assert statistics.stdev(gaps) == pytest.approx(0.5, rel=0.05), "an exponential's deviation is its mean"
    long = sum(audio == 100.0 for _, audio in sent)
    assert abs(long - 10_000) < 4 * (40_000 * 0.25 * 0.75) ** 0.5
    assert sent == list(poisson(files, 2.0, 40_000, 5)) != list(poisson(files, 2.0, 40_000, 6))
