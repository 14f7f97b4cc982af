"""A desk at the simulated Bybit: a simulator on a clock that stands still, and a client that talks to it without a
socket.
"""

import hmac
import random
from dataclasses import dataclass
from typing import Any

import orjson

from cancelq_worker.simulator import Entry, Kind, ManualClock, Reply, Request, Settings, Simulator, State

NOW_MS = 1_700_000_000_000


@dataclass(frozen=True)
class Answer:
    status: int
    code: int | None
    msg: str
    result: Any
    ext: Any
    reply: Reply

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.reply.headers}

    @property
    def outcomes(self) -> list[int]:
        """The codes of a batch, by index."""
        return [outcome["code"] for outcome in self.ext["list"]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        return list(self.result["list"])

    @property
    def ids(self) -> list[str]:
        return [row["orderId"] for row in self.rows]


def bybit_headers(
    payload: bytes,
    timestamp_ms: int,
    *,
    key: str = "sim-key",
    secret: str = "sim-secret",
    recv_window: str = "5000",
) -> dict[str, str]:
    """The headers of a call as a client of Bybit's sends them; `payload` is the query or the body."""
    prehash = str(timestamp_ms).encode() + key.encode() + recv_window.encode() + payload
    return {
        "X-BAPI-API-KEY": key,
        "X-BAPI-SIGN": hmac.new(secret.encode(), prehash, "sha256").hexdigest(),
        "X-BAPI-TIMESTAMP": str(timestamp_ms),
        "X-BAPI-RECV-WINDOW": recv_window,
        "Content-Type": "application/json",
    }


class BybitDesk:
    def __init__(self, *, limited: bool = False, seed: int = 1, **settings: Any) -> None:
        if not limited:
            settings.setdefault("limits", {"*": None})
        settings.setdefault("symbol_cancel_delay_ms", 0)
        self.clock = ManualClock(NOW_MS)
        self.simulator = Simulator(
            clock=self.clock, rng=random.Random(seed), settings=Settings.model_validate(settings)
        )

    def place(self, *, count: int = 1, state: str = "live", **fields: Any) -> list[str]:
        """Puts orders into the book; returns their ids, oldest first."""
        filled, closed_ms = fields.pop("filled", None), fields.pop("closed_ms", None)
        kind = Kind(fields.pop("kind", Kind.order))
        if kind is not Kind.order:
            fields.setdefault("trigger_price", "90")
        entry = Entry(kind=kind, **{"symbol": "BTCUSDT", **fields})
        return [
            self.simulator.add_order(
                entry, venue="bybit", state=State(state), filled=filled, closed_ms=closed_ms
            ).order_id
            for _ in range(count)
        ]

    def move(self, order_id: str, state: str, filled: str | None = None) -> str:
        """Lets the market have its way; returns the id of the order that a trigger placed."""
        return self.simulator.move_order(order_id, State(state), venue="bybit", filled=filled).child_id

    def cancel(self, order_id: str, **more: Any) -> Answer:
        return self.post("/v5/order/cancel", {"category": "spot", "symbol": "BTCUSDT", "orderId": order_id, **more})

    def cancel_batch(self, order_ids: list[str], symbol: str = "BTCUSDT") -> Answer:
        items = [{"symbol": symbol, "orderId": order_id} for order_id in order_ids]
        return self.post("/v5/order/cancel-batch", {"category": "spot", "request": items})

    def realtime(self, **params: str) -> Answer:
        return self.get("/v5/order/realtime", category="spot", **params)

    def history(self, **params: str) -> Answer:
        return self.get("/v5/order/history", category="spot", **params)

    def word(self, order_id: str) -> str:
        """The status under which /v5/order/realtime shows an order."""
        [row] = self.realtime(orderId=order_id).rows
        return str(row["orderStatus"])

    def post(self, path: str, body: Any, **signing: Any) -> Answer:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return self.send("POST", path, raw, raw, **signing)

    def get(self, path: str, **params: str) -> Answer:
        query = "&".join(f"{name}={value}" for name, value in params.items())
        return self.send("GET", f"{path}?{query}" if query else path, query.encode(), b"")

    def send(self, method: str, target: str, payload: bytes, body: bytes, **signing: Any) -> Answer:
        return self.send_raw(method, target, body, bybit_headers(payload, self.clock.wall_us() // 1000, **signing))

    def send_raw(
        self, method: str, target: str, body: bytes, headers: dict[str, str], *, ip: str = "127.0.0.1"
    ) -> Answer:
        path, _, query = target.encode().partition(b"?")
        sent = {name.lower().encode(): value.encode() for name, value in headers.items() if value}
        reply = self.simulator.call(Request(method, path, query, sent, body, ip))
        while reply.resume is not None:
            self.clock.advance(ms=reply.delay_ms)
            reply = reply.resume()
        try:
            held = orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            held = {}
        code, msg = held.get("retCode"), held.get("retMsg", "")
        return Answer(reply.status, code, msg, held.get("result"), held.get("retExtInfo"), reply)

    def truth(self, order_id: str) -> dict[str, Any]:
        return self.simulator.truth_of([order_id], venue="bybit").entries[0]

    def state(self, order_id: str) -> str:
        return str(self.truth(order_id)["state"])
