"""Servers for SimPy that grant last within an instant, by (priority, arrival, class, sequence number).

SimPy's own resources grant at once, so ties between requests of one instant would depend on the order in which
processes happen to run (semantics, section 5, rule 2).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush

import simpy
from simpy.events import EventPriority

#: SimPy handles urgent events (0) first, then normal ones (1); grants come after both.
GRANT = EventPriority(2)


class Grant(simpy.Event):
    """Looks at a server's queue once more at this instant, after all else that happens in it."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.env)
        self._ok, self._value = True, None
        self.look = server.look
        self.pending = False

    def ask(self) -> None:
        """Come at the end of this instant, once."""
        if not self.pending:
            self.pending = True
            self.callbacks = [self._come]  # SimPy clears the list each time
            self.env.schedule(self, GRANT)

    def _come(self, _: simpy.Event) -> None:
        self.pending = False
        self.look()


def then(event: simpy.Event, follow: Callable[[simpy.Event], None]) -> None:
    """Call ``follow`` when the event happens."""
    assert event.callbacks is not None, "the event has happened already"
    event.callbacks.append(follow)


class Service(simpy.Event):
    """A request. It happens ``duration`` ps after its grant; its value says when the grant was, or what it gave."""

    def __init__(self, env: simpy.Environment, duration: int, arrival: float) -> None:
        super().__init__(env)
        self.duration = duration
        self.arrival = arrival
        self.begun = False

    def begin(self, value: object) -> None:
        """Start now."""
        self.begun = True
        self._ok, self._value = True, value
        self.env.schedule(self, delay=self.duration)


class Server:
    """A queue of requests and the rule of granting them."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env
        self._waiting: list[tuple[int, float, int, int, Service]] = []
        self._grant = Grant(self)

    def request(self, duration: int, kind: int, sequence: int, priority: int = 0) -> Service:
        """Ask for service; the lowest (priority, arrival, class, sequence) is granted first."""
        service = Service(self.env, duration, self.env.now)
        heappush(self._waiting, (priority, self.env.now, kind, sequence, service))
        self._grant.ask()
        return service

    def raise_priority(self, service: Service, kind: int, sequence: int, priority: int) -> None:
        """Let a request that may still wait go with a higher priority; it keeps its arrival time.

        It is entered once more; where it has been granted, either entry is passed over.
        """
        if not service.begun:
            heappush(self._waiting, (priority, service.arrival, kind, sequence, service))

    def first(self) -> Service | None:
        """Take out the request whose turn it is."""
        while self._waiting:
            service = heappop(self._waiting)[-1]
            if not service.begun:
                return service
        return None

    def look(self) -> None:
        """Grant what can be granted."""
        raise NotImplementedError


class Pipe(Server):
    """Serves one request at a time, never interrupted; a service's value is the time of its grant."""

    def __init__(self, env: simpy.Environment) -> None:
        super().__init__(env)
        self._busy = False

    def look(self) -> None:
        """Begin the next service where the pipe is free."""
        service = None if self._busy else self.first()
        if service is not None:
            self._busy = True
            service.begin(self.env.now)

    def request(self, duration: int, kind: int, sequence: int, priority: int = 0) -> Service:
        """Ask for the pipe for ``duration`` ps."""
        service = super().request(duration, kind, sequence, priority)
        then(service, self._end)  # first in line: the pipe is free before anybody hears of the end
        return service

    def _end(self, _: simpy.Event) -> None:
        self._busy = False
        if self._waiting:
            self._grant.ask()


class Lanes(Server):
    """Equal lanes; a request takes the lowest free one and gives it back itself. A service's value is (lane, start)."""

    def __init__(self, env: simpy.Environment, lanes: int) -> None:
        super().__init__(env)
        self._free = list(range(lanes))

    def give_back(self, lane: int) -> None:
        """Free a lane."""
        heappush(self._free, lane)
        if self._waiting:
            self._grant.ask()

    def look(self) -> None:
        """Hand out free lanes."""
        while self._free and (service := self.first()):
            service.begin((heappop(self._free), self.env.now))
