"""One connection to a venue's private order stream, whatever carries it: texts go in, frames come out.

A session knows its account once the client has proven itself, remembers since when each topic is subscribed, and
writes what befalls the account's orders the way its venue does. It never waits: time comes from the core, and what
is due later is left to it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import orjson

from cancelq_worker.simulator.core import Core
from cancelq_worker.simulator.happenings import Happening
from cancelq_worker.simulator.orders import Account

Frame = str | bytes

# Close codes of RFC 6455.
NORMAL = 1000
POLICY = 1008


class Line(Protocol):
    """What carries a session's frames to its client. All calls return at once."""

    def send(self, frame: Frame) -> None:
        """A text or a binary frame, behind those sent before it."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Closes in good order, behind what was sent."""
        ...

    def abort(self) -> None:
        """Breaks the connection: no goodbye, and what was sent may be lost."""
        ...


class Session(ABC):
    """What the sessions of all venues share. `number` is unique in its hub; `query` is the URL's."""

    venue: str

    def __init__(self, core: Core, line: Line, number: int, ip: str, query: str) -> None:
        self.core = core
        self.line = line
        self.number = number
        self.ip = ip
        self.query = query
        self.opened_us = core.wall_us
        self.account: Account | None = None
        self.logins = 0
        self.logins_refused = 0
        # Topic, as the venue names it in its pushes, to the steady time of its subscription.
        self.topics: dict[str, int] = {}
        # Told of every subscription, before its answer leaves.
        self.joined: Callable[[Session], None] | None = None
        self.pushed = 0
        self.lost = 0
        self.is_open = True

    # ---- what comes in

    def received(self, data: Frame) -> None:
        """Takes one message of the client and answers it."""
        self.core.tick()
        if self.is_open:
            self._heard(data if isinstance(data, str) else data.decode("utf-8", "replace"))

    @abstractmethod
    def _heard(self, text: str) -> None:
        """One message, at the time of the core's last tick."""

    def admit(self, account: Account | None) -> bool:
        """The outcome of a login: the account whose it is, or None if it proved nothing."""
        self.account = account
        if account is None:
            self.logins_refused += 1
        else:
            self.logins += 1
        return account is not None

    def join(self, topic: str) -> None:
        """The topic is subscribed; from now on, unless it was before."""
        self.topics.setdefault(topic, self.core.now_us)
        if self.joined is not None:
            self.joined(self)

    # ---- what goes out

    def say(self, message: Any) -> None:
        """Sends an answer or a heartbeat: an object, or a text as it is."""
        if self.is_open and self.core.settings.stream_silence != "all":
            self.line.send(self.framed(message))

    def push(self, frame: Frame) -> None:
        """Sends what `frames` wrote, which may be long ago."""
        if self.is_open:
            self.pushed += 1
            self.line.send(frame)

    def framed(self, message: Any) -> Frame:
        """An object, or a text as it is, as the venue puts it on the wire."""
        return message if isinstance(message, str) else orjson.dumps(message).decode()

    def frames(self, happening: Happening) -> list[Frame]:
        """What this client is told of a happening: one frame for each topic that covers it, in the order of
        subscription; none if it happened before.
        """
        return [self.framed(message) for message in self._told(happening)]

    @abstractmethod
    def _told(self, happening: Happening) -> Iterator[Any]:
        """The messages behind `frames`."""

    # ---- its end

    def close(self, code: int, reason: str) -> None:
        """Ends the session from the venue's side."""
        self.ended()
        self.line.close(code, reason)

    def abort(self) -> None:
        """Breaks the connection under the session."""
        self.ended()
        self.line.abort()

    def ended(self) -> None:
        """The connection is gone."""
        self.is_open = False

    def start_timers(self) -> None:
        """Schedules what the venue does by itself. Called once at the start, and again when the core forgot
        everything that was scheduled.
        """
        self.heard_us = self.core.now_us

    def _watch(self, at_us: int, limit_us: int, reason: str) -> None:
        """Closes the session once `heard_us` is that long ago."""

        def look(now_us: int) -> None:
            if not self.is_open:
                return
            if now_us - self.heard_us >= limit_us:
                self.close(NORMAL, reason)
            else:
                self._watch(self.heard_us + limit_us, limit_us, reason)

        self.core.later(at_us, look)


def read_object(text: str) -> dict[str, Any] | None:
    """A message that is a JSON object; None for anything else."""
    try:
        read = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return read if isinstance(read, dict) else None
