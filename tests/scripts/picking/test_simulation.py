"""The simulation of a fleet: known formulas of queueing, a plainer twin, conservation, and the gateway's rules."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import pytest

from scripts.picking.simulation import Outcome, Rules, Server, simulate

# Whole files, one after the other, however many: what the formulas are about.
FIRST_COME = Rules(segment=math.inf, queue=math.inf, connections=None)
RUNS, FILES = 8, 20_000

Length = Callable[[random.Random], float]


def arrivals(rate: float, count: int, length: Length, seed: int) -> Iterator[tuple[float, float]]:
    chance, now = random.Random(seed), 0.0
    for _ in range(count):
        now += chance.expovariate(rate)
        yield now, length(chance)


def one_second(_: random.Random) -> float:
    return 1.0


def exponential(chance: random.Random) -> float:
    return chance.expovariate(1.0)


def mean_and_error(load: float, length: Length, rules: Rules, servers: int = 1) -> tuple[float, float]:
    """The mean wait over independent runs, and its standard error; each run begins to count when it has settled."""
    fleet = [Server(1.0)] * servers
    means = [
        statistics.fmean(
            simulate(fleet, arrivals(load * servers, FILES, length, seed), rules).waits[FILES // 10 :]
        )
        for seed in range(RUNS)
    ]
    return statistics.fmean(means), statistics.stdev(means) / math.sqrt(RUNS)


@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize(
    ("length", "factor"), [(one_second, 0.5), (exponential, 1.0)], ids=["M/D/1", "M/M/1"]
)
def test_mean_waits_are_those_of_the_formulas(load: float, length: Length, factor: float) -> None:
    """Pollaczek-Khinchine: half of M/M/1's wait where all files are alike."""
    expected = factor * load / (1 - load)
    mean, error = mean_and_error(load, length, FIRST_COME)
    assert error < 0.05 * expected, "too blunt to show anything"
    assert abs(mean - expected) < 4 * error


def test_turns_by_small_segments_are_processor_sharing() -> None:
    """A file waits in proportion to its length, load / (1 - load), whatever the others' lengths are."""
    fleet, rules = [Server(1.0)], Rules(segment=0.05, queue=math.inf, connections=None)
    slowdowns: dict[float, list[float]] = {1.0: [], 5.0: []}
    for seed in range(RUNS):
        sent = list(arrivals(0.7 / 2, FILES // 4, lambda chance: chance.choice([1.0, 1.0, 1.0, 5.0]), seed))
        waits = simulate(fleet, sent, rules).waits
        for audio, found in slowdowns.items():
            found.append(
                statistics.fmean(w / audio for w, (_, one) in zip(waits, sent, strict=True) if one == audio)
            )
    for found in slowdowns.values():
        error = statistics.stdev(found) / math.sqrt(RUNS)
        assert abs(statistics.fmean(found) - 0.7 / 0.3) < 4 * error


def test_many_servers_behind_one_gateway_wait_less_than_one_alone() -> None:
    alone, _ = mean_and_error(0.8, exponential, FIRST_COME)
    together, _ = mean_and_error(0.8, exponential, FIRST_COME, servers=10)
    assert together < alone / 5


def segment_after_segment(server: Server, sent: Sequence[tuple[float, float]], rules: Rules) -> list[float]:
    """The waits at one instance, from a loop that knows neither events nor stretches: one segment, then the next."""
    waiting: deque[list[float]] = deque()  # [place, audio left, computing beside it]
    hands: deque[tuple[int, float, bool]] = deque()
    waits, now, coming = [0.0] * len(sent), 0.0, 0
    while coming < len(sent) or waiting or hands:
        ends = now + hands[0][1] if hands else math.inf
        if coming < len(sent) and sent[coming][0] < ends:
            moment, audio = sent[coming]
            waiting.append([coming, audio, server.per_file])
            if hands:
                # What is left of the segment at work.
                place, _, last = hands[0]
                hands[0] = (place, ends - moment, last)
            now, coming = moment, coming + 1
        else:
            place, _, last = hands.popleft()
            now = ends
            if last:
                waits[place] = now - sent[place][0] - server.alone(sent[place][1])
        while waiting and len(hands) < rules.in_flight:
            one = waiting.popleft()
            audio = min(rules.segment, one[1])
            one[1] -= audio
            hands.append((int(one[0]), one[2] + audio * server.rtf, one[1] <= 0))
            one[2] = 0.0
            if one[1] > 0:
                waiting.append(one)
    return waits


@pytest.mark.parametrize("load", [0.3, 0.9])
@pytest.mark.parametrize("in_flight", [1, 2])
def test_stretches_of_a_lone_file_change_nothing(load: float, in_flight: int) -> None:
    server, rules = Server(0.02, 0.1), Rules(queue=math.inf, in_flight=in_flight)
    lengths = [1.0, 15.0, 40.0, 61.5, 3600.0]
    rate = load / statistics.fmean(map(server.alone, lengths))
    for seed in range(5):
        sent = list(arrivals(rate, 300, lambda chance: chance.choice(lengths), seed))
        plain = segment_after_segment(server, sent, rules)
        assert simulate([server], sent, rules).waits == pytest.approx(plain, abs=1e-6)


def audio_of(sent: Sequence[tuple[float, float]]) -> float:
    return sum(audio for _, audio in sent)


@pytest.mark.parametrize(
    "rules", [Rules(queue=120.0), Rules(connections=3), Rules(queue=60.0, connections=2)]
)
def test_every_request_ends_once_and_all_accepted_audio_is_computed(rules: Rules) -> None:
    fleet = [Server(0.5), Server(0.1), Server(0.3)]
    for seed in range(10):
        sent = list(arrivals(0.8, 500, lambda chance: chance.uniform(1.0, 90.0), seed))
        found = simulate(fleet, sent, rules)
        assert len(found.waits) == len(found.answers) == len(sent) - found.refused
        done = sum(seconds / server.rtf for seconds, server in zip(found.computed, fleet, strict=True))
        assert done + found.refused_audio == pytest.approx(audio_of(sent))
        assert min(found.waits) >= 0 and found.most_connections <= (rules.connections or math.inf)


def test_the_same_arrivals_give_the_same_outcome() -> None:
    def once() -> Outcome:
        return simulate([Server(0.1)] * 3, arrivals(0.5, 300, exponential, 7))

    assert once() == once()


def test_the_least_connected_instance_is_next_and_equals_take_turns() -> None:
    sent = [(float(moment), 100.0) for moment in range(4)]
    found = simulate([Server(1.0)] * 2, sent, FIRST_COME)
    assert found.computed == (200.0, 200.0)
    spread = simulate([Server(0.001)] * 4, sent, FIRST_COME)
    assert len(set(spread.computed)) == 1, "idle instances take turns"


def test_a_newcomer_waits_for_what_the_worker_has_in_its_hands() -> None:
    """And for one more segment of the file that was there before: it is behind the newcomer from then on."""
    found = simulate([Server(1.0)], [(0.0, 100.0), (1.0, 10.0)], Rules(segment=10.0))
    assert found.waits == pytest.approx([10.0, 29.0])


def test_an_instance_refuses_what_would_wait_too_long_but_never_when_it_idles() -> None:
    sent = [(0.0, 50.0), (1.0, 6.0), (2.0, 5.0), (100.0, 50.0)]
    found = simulate([Server(1.0)], sent, Rules(segment=1.0, queue=55.0))
    assert found.refused == 1 and found.refused_audio == 5.0
    assert found.answers[-1] == pytest.approx(50.0)


def test_rounding_refuses_nothing() -> None:
    """Sums of many lengths leave a little behind; an idle instance takes a file that is longer than its queue."""
    for seed in range(20):
        sent = list(arrivals(1.0, 50, lambda chance: chance.uniform(0.1, 2.0), seed))
        found = simulate([Server(0.1)], [*sent, (1e4, 5000.0)], Rules(segment=0.3, queue=4000.0))
        assert found.refused == 0


def test_requests_above_the_gateway_s_connections_wait_before_it_in_order() -> None:
    sent = [(0.0, 10.0), (1.0, 10.0), (2.0, 10.0)]
    found = simulate([Server(1.0)] * 3, sent, Rules(connections=1))
    assert found.waits == pytest.approx([0.0, 9.0, 18.0]) and found.most_connections == 1


def test_connections_are_counted_while_requests_arrive() -> None:
    found = simulate([Server(1.0)], [(0.0, 5.0), (10.0, 5.0)])
    assert found.connections == pytest.approx(0.5) and found.seconds == 10.0


def test_ten_thousand_instances(capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.perf_counter()
    fleet = [Server(0.02, 0.1)] * 10_000
    found = simulate(fleet, arrivals(5000.0, 50_000, lambda chance: chance.choice([10.0, 60.0]), 1), Rules())
    with capsys.disabled():
        print(f" [10,000 instances, 50,000 files: {time.perf_counter() - begun:.1f} s]", end="")
    assert len(found.waits) + found.refused == 50_000
    assert found.most_connections == 2000
