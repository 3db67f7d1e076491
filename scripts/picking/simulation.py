"""A discrete-event simulation of a fleet: the gateway hands requests out, each instance works through its own.

What is imitated, and where it comes from: HAProxy's leastconn and its limit of connections (ansible/roles/gateway),
admission by seconds of audio that wait (app/service/admission.py), one worker that takes turns between requests, a
segment each, with two segments in its hands (app/service/scheduler.py). What is left out is told in docs/capacity.md.
Times are seconds. The same arrivals give the same outcome: there is no chance in here.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """Settings that decide who waits.

    Attributes:
        segment: seconds of audio that are recognised at once.
        in_flight: segments in the worker's hands.
        queue: seconds of audio that may wait at an instance before it refuses.
        connections: requests that the gateway takes at once, the others wait before it; None: there is no gateway.
    """

    segment: float = 15.0
    in_flight: int = 2
    queue: float = 4 * 3600.0
    connections: int | None = 2000


@dataclass(frozen=True)
class Server:
    """An instance: seconds of computing for a second of audio, and for a file whatever its length."""

    rtf: float
    per_file: float = 0.0

    def alone(self, audio: float) -> float:
        """Seconds for a file of so many seconds when nothing else is there."""
        return self.per_file + self.rtf * audio


@dataclass(frozen=True)
class Outcome:
    """What became of all requests; every one is in here once.

    Attributes:
        waits: seconds that others' work added to each answer, in the order of arrival.
        answers: seconds from each arrival to its answer, in the same order.
        refused: how many an instance did not take; `refused_audio` are their seconds.
        computed: seconds of computing, by server.
        connections: mean number of requests inside the gateway while requests arrived.
        most_connections: the highest number of them.
        seconds: from the first moment to the last arrival.
    """

    waits: tuple[float, ...]
    answers: tuple[float, ...]
    refused: int
    refused_audio: float
    computed: tuple[float, ...]
    connections: float
    most_connections: int
    seconds: float


class _Request:
    """`left` and `fixed`: seconds of audio and of computing beside it that no worker has taken yet."""

    __slots__ = ("arrived", "audio", "fixed", "left", "place")

    def __init__(self, arrived: float, audio: float, place: int) -> None:
        self.arrived, self.audio, self.place = arrived, audio, place
        self.left, self.fixed = audio, 0.0


class _Instance:
    """A server at work. `ends` is when what it computes now is done; infinite while it is idle.

    A request that is alone is computed in one stretch from `since` on, and cut into its segments only when another
    one comes: the result is that of segment after segment, with a fraction of the events.
    """

    __slots__ = ("audio", "computed", "connections", "ends", "hands", "server", "since", "turn", "waiting")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.hands: deque[tuple[_Request, float, float]] = deque()  # segments: computing and audio in seconds
        self.waiting: deque[_Request] = deque()
        self.audio = self.computed = 0.0
        self.ends, self.since = math.inf, math.inf
        self.connections = self.turn = 0


class _Fleet:
    def __init__(self, servers: Sequence[Server], rules: Rules) -> None:
        self.rules = rules
        self.instances = [_Instance(server) for server in servers]
        # (connections, turn, number): the least is next. Entries that do not hold any more are skipped.
        self.least = [(0, 0, number) for number in range(len(servers))]
        self.ends: list[tuple[float, int]] = []
        self.limit = math.inf if rules.connections is None else rules.connections
        self.before: deque[_Request] = deque()  # waits until the gateway takes connections again
        self.turn = self.inside = self.most = self.refused = 0
        self.refused_audio = self.occupied = self.now = 0.0
        self.finished: list[tuple[int, float, float]] = []  # place, wait, answer

    def until(self, moment: float) -> None:
        """Lets everything happen that is over by then."""
        while self.ends and self.ends[0][0] <= moment:
            when, number = heapq.heappop(self.ends)
            if self.instances[number].ends == when:  # else something came between
                self._pass_to(when)
                self._slice_done(number)
        if moment < math.inf:
            self._pass_to(moment)

    def _pass_to(self, moment: float) -> None:
        self.occupied += self.inside * (moment - self.now)
        self.now = moment

    def arrive(self, request: _Request) -> None:
        if self.inside >= self.limit:
            self.before.append(request)
        else:
            self._hand_out(request)

    def _hand_out(self, request: _Request) -> None:
        while True:
            connections, turn, number = self.least[0]
            instance = self.instances[number]
            if (connections, turn) == (instance.connections, instance.turn):
                break
            heapq.heappop(self.least)
        if instance.since < math.inf:
            self._cut(instance, number)
        if instance.audio > 0 and instance.audio + request.audio > self.rules.queue:
            self.refused += 1
            self.refused_audio += request.audio
            self._move(instance, number, 0)  # it was asked: the next request asks another one
            return
        self.inside += 1
        self.most = max(self.most, self.inside)
        self._move(instance, number, 1)
        request.fixed = instance.server.per_file
        instance.audio += request.audio
        instance.waiting.append(request)
        if instance.ends == math.inf:
            self._begin(instance, number)
        else:
            self._take(instance)

    def _move(self, instance: _Instance, number: int, change: int) -> None:
        """Of servers with as many connections, the one that changed longest ago is next."""
        self.turn += 1
        instance.connections += change
        instance.turn = self.turn
        heapq.heappush(self.least, (instance.connections, self.turn, number))

    def _take(self, instance: _Instance) -> None:
        """Fills the worker's hands; who gave a segment goes behind the others."""
        while instance.waiting and len(instance.hands) < self.rules.in_flight:
            request = instance.waiting.popleft()
            audio = min(self.rules.segment, request.left)
            request.left -= audio
            instance.hands.append((request, request.fixed + audio * instance.server.rtf, audio))
            request.fixed = 0.0
            if request.left > 0:
                instance.waiting.append(request)

    def _begin(self, instance: _Instance, number: int) -> None:
        """Starts on what is next, if there is anything."""
        self._take(instance)
        if not instance.hands:
            instance.ends = math.inf
            return
        seconds = instance.hands[0][1]
        if len(instance.waiting) == 1 and all(one[0] is instance.waiting[0] for one in instance.hands):
            instance.since = self.now
            seconds = sum(one[1] for one in instance.hands) + instance.waiting[0].left * instance.server.rtf
        instance.ends = self.now + seconds
        heapq.heappush(self.ends, (instance.ends, number))

    def _cut(self, instance: _Instance, number: int) -> None:
        """Somebody comes to a request that was alone: what is done is done, and the rest is segments again."""
        started, instance.since = instance.since, math.inf
        while (len(instance.hands) > 1 or instance.waiting) and started + instance.hands[0][1] <= self.now:
            _, seconds, audio = instance.hands.popleft()
            started += seconds
            instance.computed += seconds
            instance.audio -= audio
            self._take(instance)
        instance.ends = max(self.now, started + instance.hands[0][1])
        heapq.heappush(self.ends, (instance.ends, number))

    def _slice_done(self, number: int) -> None:
        instance = self.instances[number]
        if instance.since < math.inf:  # the last segment of a request that was alone to its end
            instance.since = math.inf
            request = instance.waiting.popleft()
            rest = request.left * instance.server.rtf
            instance.computed += rest + sum(one[1] for one in instance.hands)
            instance.audio -= request.left + sum(one[2] for one in instance.hands)
            instance.hands.clear()
            request.left = 0.0
        else:
            request, seconds, audio = instance.hands.popleft()
            instance.computed += seconds
            instance.audio -= audio
        if request.left <= 0 and all(one[0] is not request for one in instance.hands):
            self._answer(instance, number, request)
        self._begin(instance, number)

    def _answer(self, instance: _Instance, number: int, request: _Request) -> None:
        took = self.now - request.arrived
        self.finished.append((request.place, max(0.0, took - instance.server.alone(request.audio)), took))
        self.inside -= 1
        self._move(instance, number, -1)
        if instance.connections == 0:
            instance.audio = 0.0  # not what rounding left
        while self.before and self.inside < self.limit:
            self._hand_out(self.before.popleft())


def simulate(
    servers: Sequence[Server], arrivals: Iterable[tuple[float, float]], rules: Rules | None = None
) -> Outcome:
    """Plays the arrivals through, until the last one is answered.

    Args:
        arrivals: (seconds since the start, seconds of audio), in order of time.
    """
    fleet = _Fleet(servers, rules or Rules())
    for place, (moment, audio) in enumerate(arrivals):
        fleet.until(moment)
        fleet.arrive(_Request(moment, audio, place))
    seconds, occupied = fleet.now, fleet.occupied
    fleet.until(math.inf)
    fleet.finished.sort()
    return Outcome(
        waits=tuple(wait for _, wait, _ in fleet.finished),
        answers=tuple(answer for _, _, answer in fleet.finished),
        refused=fleet.refused,
        refused_audio=fleet.refused_audio,
        computed=tuple(instance.computed for instance in fleet.instances),
        connections=occupied / seconds if seconds else 0.0,
        most_connections=fleet.most,
        seconds=seconds,
    )
