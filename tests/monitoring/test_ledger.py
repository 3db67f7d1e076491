"""Kills counted once though three witnesses tell, over restarts of containers, exporter and host."""

from __future__ import annotations

import json

import pytest

from monitoring.exporter.ledger import Ledger
from monitoring.exporter.names import OTHER_CONTAINERS
from tests.fakes.kernel import container_id

ID = container_id("asr")


def test_three_witnesses_of_one_kill() -> None:
    ledger = Ledger("boot")
    ledger.saw(ID, "kernel_log", name="asr")
    ledger.saw(ID, "docker", name="asr")
    ledger.read_file(ID, 1, 1, name="asr")
    assert ledger.totals() == {"asr": 1}
    assert ledger.attributed == 1


def test_each_witness_may_miss_some() -> None:
    ledger = Ledger("boot")
    ledger.read_file(ID, 1, 3, name="asr")
    ledger.saw(ID, "kernel_log")
    assert ledger.totals() == {"asr": 3}
    for _ in range(4):
        ledger.saw(ID, "docker")
    assert ledger.totals() == {"asr": 4}


def test_a_container_that_starts_again_begins_at_nought_and_its_count_does_not() -> None:
    ledger = Ledger("boot")
    ledger.read_file(ID, 1, 2, name="asr")
    ledger.read_file(ID, 2, 0, name="asr")
    ledger.read_file(ID, 2, 1, name="asr")
    ledger.read_file(ID, 2, 1, name="asr")
    assert ledger.totals() == {"asr": 3}


def test_a_start_and_a_kill_between_two_looks_leave_the_same_number_behind() -> None:
    ledger = Ledger("boot")
    ledger.read_file(ID, 1, 1, name="asr")
    ledger.read_file(ID, 2, 1, name="asr")
    assert ledger.totals() == {"asr": 2}


def test_a_counter_that_goes_backwards_counts_nothing() -> None:
    ledger = Ledger("boot")
    for kills in (4, 1, 1, 2):
        ledger.read_file(ID, 1, kills, name="asr")
    assert ledger.totals() == {"asr": 5}


def test_quiet_containers_leave_nothing() -> None:
    ledger = Ledger("boot")
    ledger.read_file(ID, 1, 0, name="asr")
    assert not ledger.totals()
    assert not ledger.containers
    assert not ledger.changed


def test_a_name_learned_late_and_one_that_changes() -> None:
    ledger = Ledger("boot")
    ledger.saw(ID, "kernel_log")
    assert ledger.totals() == {ID[:12]: 1}
    ledger.rename(ID, "asr")
    assert ledger.totals() == {"asr": 1}


def test_containers_of_one_name_are_one_series() -> None:
    ledger = Ledger("boot")
    for run in range(5):
        ledger.saw(container_id(str(run)), "kernel_log", name="asr")
    assert ledger.totals() == {"asr": 5}


def test_thousands_of_containers_stay_bounded_and_every_kill_counted() -> None:
    ledger = Ledger("boot")
    for run in range(2000):
        ledger.saw(container_id(str(run)), "kernel_log", name=f"job-{run}")
    totals = ledger.totals()
    assert len(totals) <= 501
    assert sum(totals.values()) == ledger.attributed == 2000
    assert totals[OTHER_CONTAINERS] == 1500
    assert len(json.dumps(ledger.as_data())) < 200_000


def stored(ledger: Ledger, boot: str) -> Ledger:
    return Ledger.from_data(json.loads(json.dumps(ledger.as_data())), boot)


def test_the_exporter_starts_again() -> None:
    ledger = Ledger("boot")
    ledger.read_file(ID, 1, 2, name="asr")
    ledger.log_sequence, ledger.docker_nanoseconds = 17, 99
    again = stored(ledger, "boot")
    again.read_file(ID, 1, 2, name="asr")
    assert again.totals() == {"asr": 2}
    assert (again.log_sequence, again.docker_nanoseconds) == (17, 99)


def test_the_host_boots_again() -> None:
    ledger = Ledger("boot")
    ledger.read_file(ID, 1, 2, name="asr")
    ledger.log_sequence = 5000
    again = stored(ledger, "another boot")
    assert again.totals() == {"asr": 2}
    assert again.attributed == 0
    assert again.log_sequence == -1
    assert again.changed
    again.read_file(ID, 1, 1, name="asr")
    assert again.totals() == {"asr": 3}
    assert stored(again, "a third").totals() == {"asr": 3}


def test_many_names_are_folded_at_the_next_boot() -> None:
    ledger = Ledger("boot", earlier={f"job-{run}": run for run in range(1, 401)})
    again = stored(ledger, "another boot")
    assert len(again.totals()) == 201
    assert sum(again.totals().values()) == sum(range(401))


@pytest.mark.parametrize(
    "damage",
    [
        {"boot": "boot"},
        {**Ledger("boot").as_data(), "containers": []},
        {**Ledger("boot").as_data(), "folded": {"asr": -1}},
        {**Ledger("boot").as_data(), "earlier": {"asr": "many"}},
        {**Ledger("boot").as_data(), "containers": {ID: {"name": "asr"}}},
        {**Ledger("boot").as_data(), "log_sequence": None},
    ],
)
def test_what_is_no_ledger(damage: dict) -> None:
    with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
        Ledger.from_data(damage, "boot")
