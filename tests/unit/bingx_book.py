"""The orders of one BingX account, and a venue that lists, finds and cancels them: pure, and as odd as it is told."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from cancelq_worker.venues.port import Answer, Request
from tests.unit.bingx_account import PAIR, answer, listed, row
from tests.unit.journey import UTC_US

ASKED_MS = UTC_US // 1000
OLD, NEW = ASKED_MS - 60_000, ASKED_MS + 60_000
DEAD = "the order you want to cancel is FILLED or CANCELLED already, or is not a valid order id ,please verify"
TYPES = {"order": "LIMIT", "tpsl": "TAKE_STOP_LIMIT", "stop": "TRIGGER_LIMIT"}


@dataclass
class Book:
    """`deaf`: ids it never cancels; `spares`: its bulk call leaves trigger orders alone; `tells`: its lists tell client
    ids; `oldest_first`: which end of the history comes first; `closed`: endpoints that answer nothing readable."""

    open: dict[str, dict[str, Any]] = field(default_factory=dict)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    bulk_works: bool = True
    spares: bool = False
    tells: bool = True
    oldest_first: bool = False
    closed: set[str] = field(default_factory=set)
    cancelled: list[str] = field(default_factory=list)
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def add(self, *ids: int, kind: str = "order", symbol: str = PAIR, at_ms: int = OLD, client: str = "") -> None:
        for n in ids:
            made = row(str(n), "PENDING", symbol=symbol, type=TYPES[kind], time=at_ms, clientOrderID=client)
            self.open[str(n)] = made

    def end(self, *ids: int, status: str = "FILLED", symbol: str = PAIR, client: str = "") -> None:
        for n in ids:
            self.ended[str(n)] = row(str(n), status, symbol=symbol, clientOrderID=client)

    @property
    def left(self) -> set[int]:
        return {int(order_id) for order_id in self.open}

    def named(self, endpoint: str) -> list[dict[str, str]]:
        """The calls of one endpoint."""
        return [params for name, params in self.calls if name == endpoint]

    def __call__(self, request: Request) -> Answer:
        name, params = request.path.rpartition("/")[2], dict(parse_qsl(request.query))
        self.calls.append((name, params))
        if name in self.closed:
            return Answer(200, {}, b"<html>")
        match name:
            case "openOrders":
                return self._listed(self.open, params)
            case "historyOrders":
                return self._history(params)
            case "query":
                return self._query(params)
            case "cancelOpenOrders":
                return self._bulk(params.get("symbol"))
            case "cancelOrders":
                return self._batch(params)
            case _:
                return self._single(params)

    def _listed(self, rows: dict[str, dict[str, Any]], params: dict[str, str]) -> Answer:
        found = [self._told(r) for r in rows.values() if params.get("symbol") in (None, r["symbol"])]
        found.sort(key=lambda r: -int(r["orderId"]))
        return listed(*found[:2000])

    def _history(self, params: dict[str, str]) -> Answer:
        lowest, size = int(params.get("orderId", "0")), int(params["pageSize"])
        found = [r for r in self.ended.values() if r["symbol"] == params["symbol"] and r["orderId"] >= lowest]
        found.sort(key=lambda r: int(r["orderId"]) * (1 if self.oldest_first else -1))
        index = int(params.get("pageIndex", "1"))
        assert index * size <= 10_000, "the venue shows no more"
        return listed(*(self._told(r) for r in found[(index - 1) * size : index * size]))

    def _told(self, made: dict[str, Any]) -> dict[str, Any]:
        return made if self.tells else {name: value for name, value in made.items() if name != "clientOrderID"}

    def _query(self, params: dict[str, str]) -> Answer:
        found = self._find({**self.ended, **self.open}, params)
        return answer(found) if found else answer(code=100404, msg="order not exist")

    def _find(self, rows: dict[str, dict[str, Any]], params: dict[str, str]) -> dict[str, Any] | None:
        for made in rows.values():
            named = made["orderId"] == int(params.get("orderId", "0"))
            if (named or made["clientOrderID"] == params.get("clientOrderID")) and made["symbol"] == params["symbol"]:
                return made
        return None

    def _single(self, params: dict[str, str]) -> Answer:
        found = self._find(self.open, params)
        if found is None:
            return answer(code=100400, msg=DEAD)
        return answer(self._cancel(str(found["orderId"])))

    def _batch(self, params: dict[str, str]) -> Answer:
        assert params["process"] == "1"
        done, fails = [], []
        for order_id in params["orderIds"].split(","):
            if order_id in self.open:
                assert self.open[order_id]["symbol"] == params["symbol"]
                done.append(self._cancel(order_id))
            else:
                fails.append({"orderId": order_id, "error": f"can not find order for orderId:{order_id}"})
        return answer({"orders": done, "fails": fails})

    def _bulk(self, symbol: str | None) -> Answer:
        for order_id, made in list(self.open.items()):
            spared = self.spares and made["type"] != "LIMIT"
            if self.bulk_works and not spared and symbol in (None, made["symbol"]):
                self._cancel(order_id)
        return answer({"orders": []})

    def _cancel(self, order_id: str) -> dict[str, Any]:
        self.cancelled.append(order_id)
        if order_id in self.deaf:
            return self.open[order_id]
        made = {**self.open.pop(order_id), "status": "CANCELED"}
        self.ended[order_id] = made
        return made
