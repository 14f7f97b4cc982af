"""All private order streams of one simulator: who is connected, who is told what, and what goes wrong on the way.

The hub watches the core only while somebody is connected, so streams that nobody uses cost nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cancelq_worker.simulator.core import Core
from cancelq_worker.simulator.happenings import WHAT_OF_STATE, Happening
from cancelq_worker.simulator.limits import Rule
from cancelq_worker.simulator.streams import bingx, bitget, bybit
from cancelq_worker.simulator.streams.bingx import BingxSession, ListenKeys
from cancelq_worker.simulator.streams.bitget import BitgetSession
from cancelq_worker.simulator.streams.bybit import BybitSession
from cancelq_worker.simulator.streams.session import Frame, Line, Session

# What no client can make sense of: half an object, no object, bytes that are no text, a page of a proxy.
GARBAGE: tuple[Frame, ...] = (
    '{"action":"snapshot","arg":{"instType":"SPOT","chan',
    "[]",
    "null",
    b"\xff\xfe\x00garbage\x80",
    "<html><body><h1>502 Bad Gateway</h1></body></html>",
    "",
)
# What each session counts for itself.
COUNTS = ("logins", "logins_refused", "pushed", "lost")
# Of no account: it has the digits of a real id.
NOBODYS_ORDER = 999_999_999_999_999_999


class NoStreamError(Exception):
    """No venue has a stream at that path."""


class TooManyStreamsError(Exception):
    """The venue takes no more connections of that address; the message says why."""


class Hub:
    """`venues` may hold one that hands out listen keys (`ListenKeys`), under BingX's name."""

    def __init__(self, core: Core, venues: Mapping[str, object]) -> None:
        self._core = core
        self._venues = venues
        self._sessions: dict[int, Session] = {}
        self._numbered = 0
        # Told of every subscription of every session.
        self.joined: list[Callable[[Session], None]] = []
        self._totals = {"opened": 0, "dropped": 0, "logins": 0, "logins_refused": 0, "pushed": 0, "lost": 0}

    @staticmethod
    def rules() -> dict[str, Rule]:
        """The buckets of the streams, for the limiter."""
        return {**bitget.RULES, **bybit.RULES, **bingx.RULES}

    # ---- connections

    def open(self, path: bytes, query: str, ip: str, line: Line) -> Session:
        """A session for a connection that arrives now; give it what the client says, and tell `leave` when the
        connection is gone. Raises `NoStreamError`, `TooManyStreamsError`.
        """
        core = self._core
        core.tick()
        match path:
            case bitget.PATH:
                self._admit(bitget.CONNECTS, ip)
                self._find_room(bitget.NAME, bitget.OPEN, ip)
                session: Session = BitgetSession(core, line, self._next(), ip, query)
            case bybit.PATH:
                self._admit(bybit.CONNECTS, ip)
                session = BybitSession(core, line, self._next(), ip, query)
            case bingx.PATH:
                self._admit(bingx.CONNECTS, ip)
                self._find_room(bingx.NAME, bingx.OPEN, ip)
                session = BingxSession(core, line, self._next(), ip, query, self._listen_keys())
            case _:
                raise NoStreamError(f"no venue has a stream at {path.decode('latin-1')}")
        if not self._sessions:
            core.observers.append(self._told)
        session.joined = self._joined
        self._sessions[session.number] = session
        self._totals["opened"] += 1
        session.start_timers()
        return session

    def leave(self, session: Session) -> None:
        """The session's connection is gone; may be told more than once."""
        session.ended()
        if self._sessions.pop(session.number, None) is None:
            return
        for name in COUNTS:
            self._totals[name] += getattr(session, name)
        if not self._sessions:
            self._core.observers.remove(self._told)

    def drop(self, venue: str | None = None) -> int:
        """Breaks all connections, or those of one venue; returns how many."""
        dropped = [one for one in self._sessions.values() if venue in (None, one.venue)]
        for session in dropped:
            session.abort()
            self.leave(session)
        self._totals["dropped"] += len(dropped)
        return len(dropped)

    def forget(self) -> None:
        """Sets the counts to 0. Connections, logins and subscriptions stay; pushes under way are gone. To be called
        when the core has forgotten what was scheduled.
        """
        self._totals = dict.fromkeys(self._totals, 0)
        for session in self._sessions.values():
            session.pushed = session.lost = session.logins = session.logins_refused = 0
            session.start_timers()

    def report(self) -> dict[str, Any]:
        """The connections that are open, oldest first, and counts over all there were. `pushed` counts every frame
        that left unasked, repeated, foreign and unreadable ones too; `lost` those that were to leave and did not.
        """
        sessions = self._sessions.values()
        totals = {
            name: count + (sum(getattr(one, name) for one in sessions) if name in COUNTS else 0)
            for name, count in self._totals.items()
        }
        return {"streams": [_entry(one) for one in sessions], **totals}

    def has_subscribers(self, venue: str) -> bool:
        """Whether some client is subscribed at the venue; `joined` tells of the next one."""
        return any(one.venue == venue and one.topics for one in self._sessions.values())

    def _admit(self, bucket: str, ip: str) -> None:
        if not self._core.limiter.window(bucket, ip).admit(self._core.now_us):
            raise TooManyStreamsError(f"too many connections of {ip} in a short time")

    def _find_room(self, venue: str, bucket: str, ip: str) -> None:
        most = self._core.limiter.rule(bucket).limit
        if most is not None and sum(one.ip == ip and one.venue == venue for one in self._sessions.values()) >= most:
            raise TooManyStreamsError(f"{most} connections of {ip} are open")

    def _next(self) -> int:
        self._numbered += 1
        return self._numbered

    def _listen_keys(self) -> ListenKeys | None:
        venue = self._venues.get(bingx.NAME)
        return venue if isinstance(venue, ListenKeys) else None

    def _joined(self, session: Session) -> None:
        for watcher in list(self.joined):
            watcher(session)

    # ---- pushes

    def _told(self, happening: Happening) -> None:
        book = happening.book
        for session in list(self._sessions.values()):
            account = session.account
            if account is not None and account.uid == book.uid and session.venue == book.venue:
                for frame in session.frames(happening):
                    self._deliver(session, happening, frame)

    def _deliver(self, session: Session, happening: Happening, frame: Frame) -> None:
        settings = self._core.settings
        if settings.stream_silence != "none" or self._drawn(settings.stream_loss):
            session.lost += 1
            return
        if self._drawn(settings.stream_garbage):
            self._send(session, happening.at_us, self._core.rng.choice(GARBAGE))
        if self._drawn(settings.stream_foreign):
            for foreign in self._foreign(session, happening):
                self._send(session, happening.at_us, foreign)
        self._send(session, happening.at_us, frame)
        if self._drawn(settings.stream_repeat):
            self._send(session, happening.at_us, frame)

    def _send(self, session: Session, at_us: int, frame: Frame) -> None:
        settings = self._core.settings
        delay_us = settings.stream_delay_ms * 1000
        if settings.stream_jitter_ms:
            delay_us += self._core.rng.randrange(settings.stream_jitter_ms * 1000)
        if delay_us:
            self._core.later(at_us + delay_us, lambda _: session.push(frame))
        else:
            session.push(frame)

    def _foreign(self, session: Session, happening: Happening) -> list[Frame]:
        """Frames about an order of another account of the venue, as it stands; about one of nobody, if there is none
        that the client's subscription covers.
        """
        core, order = self._core, happening.order
        for (venue, uid), book in core.books.items():
            if venue != session.venue or uid == happening.book.uid or not book.orders:
                continue
            other = core.rng.choice(book.orders)
            frames = session.frames(Happening(WHAT_OF_STATE[other.state], book, other, happening.at_us))
            if frames:
                return frames
        number = NOBODYS_ORDER - core.rng.randrange(10**9)
        nobodys = replace(order, number=number, order_id=str(number), client_id="", parent_id="", child_id="")
        return session.frames(happening._replace(order=nobodys))

    def _drawn(self, share: float) -> bool:
        return share > 0.0 and self._core.rng.random() < share


def _entry(session: Session) -> dict[str, Any]:
    return {
        "number": session.number,
        "venue": session.venue,
        "uid": session.account.uid if session.account is not None else "",
        "ip": session.ip,
        "opened_us": session.opened_us,
        "topics": list(session.topics),
        "logins": session.logins,
        "logins_refused": session.logins_refused,
        "pushed": session.pushed,
        "lost": session.lost,
    }
