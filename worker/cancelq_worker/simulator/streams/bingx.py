"""BingX's spot account stream, /market?listenKey=…: one subscription, `spot.executionReport`.

After its page "Order update" and frames captured by clients. Every frame is gzip. What the venue tells a client whose
listen key is none, and for how long it puts up with a silent client, is not documented; both are chosen here.
"""

import gzip
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Protocol, runtime_checkable
from urllib.parse import parse_qs

import orjson

from cancelq_worker.simulator.bingx.rows import Rows, traded_at, type_word, worth
from cancelq_worker.simulator.core import Core
from cancelq_worker.simulator.happenings import Happening, What
from cancelq_worker.simulator.limits import Rule
from cancelq_worker.simulator.orders import Account, Order, State
from cancelq_worker.simulator.streams.session import NORMAL, Frame, Line, Session, read_object

NAME = "bingx"
PATH = b"/market"
CONNECTS = "bingx/ws-connect"
OPEN = "bingx/ws-open"
# No number of connections in a time is documented, only 60 that are open at once.
RULES = {CONNECTS: Rule(None, 60_000_000), OPEN: Rule(60, 0)}
TOPIC = "spot.executionReport"
PING_US = 5_000_000
IDLE_US = 60_000_000
VENUE_ZONE = timezone(timedelta(hours=8))

OK = 0
PARAMETER_WRONG = 100400
KEY_WRONG = 100413

# The kind of event that led to a state. Of an order that fires nothing is known.
EVENTS = {
    State.live: "NEW",
    State.partially_filled: "TRADE",
    State.filled: "TRADE",
    State.cancelled: "CANCELED",
    State.triggered: "TRADE",
    State.failed: "EXPIRED",
}


@runtime_checkable
class ListenKeys(Protocol):
    """Who hands out listen keys."""

    def owner_of(self, listen_key: str) -> Account | None:
        """The account of a key that is valid now. May tick the core."""
        ...


class BingxSession(Session):
    """The listen key is the login; it is looked at again at every heartbeat and whenever the client says something.
    (Not at every push: whoever is asked may tick the core, in the middle of the change that is to be told.)
    """

    venue = NAME

    def __init__(self, core: Core, line: Line, number: int, ip: str, query: str, keys: ListenKeys | None) -> None:
        super().__init__(core, line, number, ip, query)
        self._rows = Rows(core)
        self._keys = keys
        self._listen_key = parse_qs(query).get("listenKey", [""])[0]
        if self._listen_key:
            self.admit(None if core.settings.stream_refuse_logins else self._owner())

    def start_timers(self) -> None:
        super().start_timers()
        self._watch(self.core.now_us + IDLE_US, IDLE_US, "no pong")
        self._ping(self.core.now_us)

    def _ping(self, at_us: int) -> None:
        def ring(now_us: int) -> None:
            if self.is_open and not self._expired():
                self._beat()
                self._ping(now_us)

        self.core.later(at_us + PING_US, ring)

    def _beat(self) -> None:
        if self.core.settings.bingx_stream_ping == "text":
            self.say("Ping")
            return
        seconds, millis = divmod(self.core.venue_us() // 1000, 1000)
        stamp = f"{datetime.fromtimestamp(seconds, VENUE_ZONE):%Y-%m-%dT%H:%M:%S}.{millis:03d}+0800"
        self.say({"ping": f"{self.core.rng.getrandbits(128):032x}", "time": stamp})

    def _owner(self) -> Account | None:
        return None if self._keys is None else self._keys.owner_of(self._listen_key)

    def _expired(self) -> bool:
        """Whether the listen key opened the stream and no longer does: then the client is told, and the connection
        ends.
        """
        if self.account is None or self._owner() is not None:
            return False
        self.say({"e": "listenKeyExpired", "E": self.core.venue_us() // 1000, "listenKey": self._listen_key})
        self.close(NORMAL, "listen key expired")
        return True

    def framed(self, message: Any) -> Frame:
        raw = message.encode() if isinstance(message, str) else orjson.dumps(message)
        return gzip.compress(raw, compresslevel=1, mtime=0)

    # ---- what the client says

    def _heard(self, text: str) -> None:
        if text == "Pong":
            self.heard_us = self.core.now_us
            return
        if text == "Ping":
            self.say("Pong")
            return
        message = read_object(text) or {}
        if "pong" in message:
            self.heard_us = self.core.now_us
        elif "ping" in message:
            self.say({"pong": message["ping"], "time": message.get("time", "")})
        elif not self._expired():
            self._subscription(message)

    def _subscription(self, message: dict[str, Any]) -> None:
        """A request without `reqType` subscribes, as clients in use rely on."""
        wanted = message.get("reqType", "sub")
        if message.get("dataType") != TOPIC or wanted not in ("sub", "unsub"):
            self._answer(message, PARAMETER_WRONG, "dataType or reqType is not supported")
        elif self.account is None:
            self._answer(message, KEY_WRONG, "Incorrect listenKey")
        elif wanted == "sub":
            self.join(TOPIC)
            self._answer(message, OK, "SUCCESS")
        else:
            self.topics.pop(TOPIC, None)
            self._answer(message, OK, "SUCCESS")

    def _answer(self, message: dict[str, Any], code: int, text: str) -> None:
        now_ms = self.core.venue_us() // 1000
        self.say({"code": code, "id": message.get("id", ""), "msg": text, "timestamp": now_ms})

    # ---- pushes

    def _told(self, happening: Happening) -> Iterator[Any]:
        since_us = self.topics.get(TOPIC)
        if since_us is not None and happening.at_us >= since_us and happening.what is not What.cancel_too_late:
            yield {"code": OK, "dataType": TOPIC, "data": self._report(happening)}

    def _report(self, happening: Happening) -> dict[str, Any]:
        """The fields of one report; quantities and prices are numbers, there is no client id."""
        order, trade = happening.order, happening.trade
        price = traded_at(order)
        last = trade.size if trade is not None else "0"
        return {
            "e": "executionReport",
            "E": self.core.venue_us() // 1000,
            "s": order.symbol,
            "S": order.side.upper(),
            "o": type_word(order),
            "q": _number(order.size),
            "p": _number(price),
            "x": EVENTS[order.state],
            "X": self._rows.word(order, order.state),
            "i": self._id(order),
            "l": _number(last),
            "z": _number(order.filled),
            "L": _number(price if trade is not None else "0"),
            "n": 0,
            "N": "",
            "T": trade.at_us // 1000 if trade is not None else 0,
            "t": trade.number >> 22 if trade is not None else 0,
            "O": order.created_us // 1000,
            "Z": _number(worth(order.filled, price)),
            "Y": _number(worth(last, price)),
            "Q": 0,
            "m": False,
        }

    def _id(self, order: Order) -> int | str:
        form = self.core.settings.bingx_stream_ids
        as_text = form == "text" or (form == "mixed" and self.core.rng.random() < 0.5)
        return order.order_id if as_text else order.number


def _number(text: str) -> orjson.Fragment:
    """A JSON number that loses no digit on the way."""
    return orjson.Fragment(format(Decimal(text), "f"))
