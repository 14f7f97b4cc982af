"""Bybit's private stream, /v5/private: auth, subscriptions, and the topics `order` and `order.spot`.

After its pages "Connect" and "Order" and their examples. Texts of refusals are not documented; those of a bad login
and of an unknown topic are captured ones, and no client may match on any.
"""

import hmac
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from cancelq_worker.simulator.bybit.rows import Rows
from cancelq_worker.simulator.core import Core
from cancelq_worker.simulator.happenings import Happening, What
from cancelq_worker.simulator.limits import Rule
from cancelq_worker.simulator.orders import Account
from cancelq_worker.simulator.streams.session import Frame, Line, Session, read_object

NAME = "bybit"
PATH = b"/v5/private"
CONNECTS = "bybit/ws-connect"
# "Do not build over 500 connections in 5 minutes."
RULES = {CONNECTS: Rule(500, 300_000_000)}
# Without ping and without data sent: 10 minutes, or `max_active_time`, which may be 30 s to 600 s.
IDLE_US = 600_000_000
SHORTEST_IDLE_US = 30_000_000

EVERY_CATEGORY = "order"
ONE_CATEGORY = frozenset({"order.spot", "order.linear", "order.inverse", "order.option"})

LOGIN_REFUSED = "Params Error"
NOT_LOGGED_IN = "Request not authorized"
MIXED = "All-In-One topic and Categorised topic cannot be in the same subscription request"


class BybitSession(Session):
    """A topic is as the client wrote it."""

    venue = NAME

    def __init__(self, core: Core, line: Line, number: int, ip: str, query: str) -> None:
        super().__init__(core, line, number, ip, query)
        self._rows = Rows(core)

    def start_timers(self) -> None:
        super().start_timers()
        limit_us = _idle_us(self.query)
        self._watch(self.core.now_us + limit_us, limit_us, "idle")

    def push(self, frame: Frame) -> None:
        self.heard_us = self.core.now_us
        super().push(frame)

    def _heard(self, text: str) -> None:
        message = read_object(text)
        if message is None:
            self._answer({}, success=False, ret_msg="Json parse failure")
            return
        match message.get("op"):
            case "auth":
                self._login(message)
            case "ping":
                self.heard_us = self.core.now_us
                self._answer(message, op="pong", args=[str(self.core.venue_us() // 1000)])
            case "subscribe":
                self._subscribe(message)
            case "unsubscribe":
                for topic in _topics(message) or ():
                    self.topics.pop(topic, None)
                self._answer(message, success=True, ret_msg="", op="unsubscribe")
            case _:
                self._answer(message, success=False, ret_msg="error:invalid op")

    def _answer(self, message: dict[str, Any], **fields: Any) -> None:
        named = {"req_id": message["req_id"]} if message.get("req_id") else {}
        self.say({**named, **fields, "conn_id": self._connection})

    @property
    def _connection(self) -> str:
        return f"sim{self.number:017d}-{self.number:x}"

    # ---- login

    def _login(self, message: dict[str, Any]) -> None:
        proven = self.admit(self._proven(message.get("args")))
        self._answer(message, success=proven, ret_msg="" if proven else LOGIN_REFUSED, op="auth")

    def _proven(self, args: Any) -> Account | None:
        """`expires` has to be later than the venue's clock; it may be a number or its digits."""
        if self.core.settings.stream_refuse_logins or not isinstance(args, list) or len(args) != 3:
            return None
        key, expires, sign = (str(one) for one in args)
        if not (expires.isascii() and expires.isdecimal() and len(expires) <= 16):
            return None
        account = self.core.accounts.get((NAME, key))
        if account is None or int(expires) <= self.core.venue_us() // 1000:
            return None
        digest = hmac.digest(account.secret.encode(), f"GET/realtime{expires}".encode(), "sha256")
        return account if hmac.compare_digest(digest.hex().encode(), sign.encode()) else None

    # ---- subscriptions

    def _subscribe(self, message: dict[str, Any]) -> None:
        topics = _topics(message)
        refusal = NOT_LOGGED_IN if self.account is None else _unfit(topics)
        if refusal or topics is None:
            self._answer(message, success=False, ret_msg=refusal, op="subscribe")
            return
        for topic in topics:
            self.join(topic)
        self._answer(message, success=True, ret_msg="", op="subscribe")

    # ---- pushes

    def _told(self, happening: Happening) -> Iterator[Any]:
        for topic, since_us in self.topics.items():
            if topic in (EVERY_CATEGORY, "order.spot") and happening.at_us >= since_us:
                yield {
                    "id": f"{self.core.rng.getrandbits(56):014x}-{self.number}-{self.pushed}",
                    "topic": topic,
                    "creationTime": self.core.venue_us() // 1000,
                    "data": [self._row(happening)],
                }

    def _row(self, happening: Happening) -> dict[str, Any]:
        """The row of the look-ups; but the message of a fill and that of the cancel it beat are two."""
        row = self._rows.order(happening.order, happening.book)
        if happening.what is What.filled:
            row.update(cancelType="UNKNOWN", rejectReason="EC_NoError")
        elif happening.what is What.cancel_too_late:
            row.update(cancelType="CancelByUser", rejectReason="EC_OrigClOrdIDDoesNotExist")
        return {"category": "spot", **row, "closedPnl": "0", "feeCurrency": "", "cumFeeDetail": {}}


def _topics(message: dict[str, Any]) -> list[str] | None:
    args = message.get("args")
    return args if isinstance(args, list) and all(isinstance(one, str) for one in args) else None


def _unfit(topics: list[str] | None) -> str:
    """What is wrong with the topics of a subscription; "" if nothing is."""
    if not topics:
        return "Params Error"
    for topic in topics:
        if topic != EVERY_CATEGORY and topic not in ONE_CATEGORY:
            return f"error:handler not found,topic:{topic}"
    return MIXED if EVERY_CATEGORY in topics and ONE_CATEGORY.intersection(topics) else ""


def _idle_us(query: str) -> int:
    asked = re.fullmatch(r"(\d{1,4})(s|m)", parse_qs(query).get("max_active_time", [""])[0])
    if asked is None:
        return IDLE_US
    return min(IDLE_US, max(SHORTEST_IDLE_US, int(asked[1]) * (1_000_000 if asked[2] == "s" else 60_000_000)))
