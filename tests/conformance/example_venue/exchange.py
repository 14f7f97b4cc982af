"""The exchange that the example venue trades at: as small as an exchange can be, and a `World` of the suite.

Orders are normal ones only. It checks the signature, so that an adapter that signs something else than it sends is
refused here as it would be there.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson

from cancelq_worker.venues.port import Answer, Signed
from tests.conformance.suite.dossier import Dossier
from tests.unit.journey import UTC_US

PAGE = 50
WORDS = {"live": "open", "partially_filled": "partly", "filled": "done", "cancelled": "void"}


@dataclass
class Order:
    number: int
    pair: str
    mine: str
    made_ms: int
    state: str

    def row(self) -> dict[str, str]:
        return {
            "id": str(self.number),
            "mine": self.mine,
            "pair": self.pair,
            "state": WORDS[self.state],
            "traded": {"partially_filled": "0.5", "filled": "1"}.get(self.state, "0"),
            "made_ms": str(self.made_ms),
        }

    @property
    def is_open(self) -> bool:
        return self.state in ("live", "partially_filled")


class ToyExchange:
    def __init__(self, dossier: Dossier) -> None:
        self._secret = dossier.papers.keys.secret
        self._orders: dict[str, Order] = {}
        self._now_us = UTC_US
        self._paths: list[str] = []
        self._stuck: set[str] = set()
        self._deaf: set[str] = set()
        self._racing: set[str] = set()

    # -- as the suite prepares and checks it ----------------------------------------------------------------------

    def move_to(self, utc_us: int) -> None:
        self._now_us = max(self._now_us, utc_us)

    def now_ms(self) -> int:
        return self._now_us // 1000

    def add(
        self, kind: str = "order", state: str = "live", *, symbol: str, client_id: str = "", created_ms: int
    ) -> str:
        assert kind == "order", "the example exchange has no other orders"
        number = 9_007_199_254_740_993 + len(self._orders)  # the first that no double can hold
        self._orders[str(number)] = Order(number, symbol, client_id, created_ms, state)
        return str(number)

    def state(self, order_id: str) -> str:
        return self._orders[order_id].state

    def child(self, order_id: str) -> str:
        return ""

    def refuses_cancels(self, order_id: str) -> None:
        self._stuck.add(order_id)

    def ignores_cancels(self, order_id: str) -> None:
        self._deaf.add(order_id)

    def fills_first(self, order_id: str) -> None:
        self._racing.add(order_id)

    def paths(self) -> list[str]:
        return self._paths

    # -- as a client sees it --------------------------------------------------------------------------------------

    def send(self, signed: Signed) -> Answer:
        call, sent = signed.request, signed.headers
        self._paths.append(call.path)
        covered = f"{sent['X-Time']}{call.method}{call.path}{call.query}".encode() + call.body
        if not hmac.compare_digest(
            sent["X-Sign"], hmac.new(self._secret.encode(), covered, hashlib.sha256).hexdigest()
        ):
            return _say(401, code="bad_sign")
        if abs(int(sent["X-Time"]) - self.now_ms()) > 5_000:
            return _say(400, code="bad_time")
        named = orjson.loads(call.body) if call.body else dict(parse_qsl(call.query))
        match call.method, call.path:
            case "POST", "/v1/cancel":
                return self._cancel(named)
            case "GET", "/v1/order":
                order = self._find(named)
                return _say(200, code="ok", order=order.row()) if order else _say(404, code="no_order")
            case "GET", "/v1/open":
                return self._open(named)
            case _:
                return _say(404, code="no_path")

    def _cancel(self, named: dict[str, str]) -> Answer:
        order = self._find(named)
        if order is None or not order.is_open:
            return _say(404, code="no_order", text="there is no such order, or it has ended")
        order_id = str(order.number)
        if order_id in self._stuck:
            return _say(400, code="busy", text="this order cannot be cancelled now")
        if order_id in self._racing:
            order.state = "filled"
        elif order_id not in self._deaf:
            order.state = "cancelled"
        return _say(200, code="ok", id=order_id, mine=order.mine)

    def _find(self, named: dict[str, str]) -> Order | None:
        of_pair = [order for order in self._orders.values() if order.pair == named["pair"]]
        if "id" in named:
            return next((order for order in of_pair if str(order.number) == named["id"]), None)
        return next((order for order in of_pair if order.mine and order.mine == named["mine"]), None)

    def _open(self, named: dict[str, str]) -> Answer:
        below, pair = int(named.get("before", 2**63)), named.get("pair")
        orders = sorted(self._orders.values(), key=lambda order: -order.number)
        shown = [o for o in orders if o.is_open and o.number < below and pair in (None, o.pair)]
        return _say(200, code="ok", orders=[order.row() for order in shown[:PAGE]])


def _say(status: int, **body: Any) -> Answer:
    return Answer(status, {"content-type": "application/json"}, orjson.dumps(body))
