"""A desk at the simulated BingX on a clock that stands still, and a client that signs as BingX's documents say."""

import hmac
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from cancelq_worker.simulator import Entry, Kind, ManualClock, Reply, Request, Settings, Simulator, State
from cancelq_worker.simulator.bingx.venue import Bingx

SPOT = "/openApi/spot/v1"
TRADE = f"{SPOT}/trade"
LISTEN_KEY = "/openApi/user/auth/userDataStream"
NOW_MS = 1_700_000_000_000
PAIR = "BTC-USDT"
UNKNOWN = "1111461743123927040"


@dataclass(frozen=True)
class Answer:
    status: int
    code: int
    msg: str
    data: Any
    reply: Reply

    @property
    def limit_headers(self) -> tuple[int, int] | None:
        """Remain and Expire; None if the answer has neither."""
        held = dict(self.reply.headers)
        if not held:
            return None
        return int(held[b"x-ratelimit-requests-remain"]), int(held[b"x-ratelimit-requests-expire"])


def signature_of(canonical: str, secret: str = "sim-secret") -> str:
    return hmac.digest(secret.encode(), canonical.encode(), "sha256").hex()


def canonical_of(params: dict[str, Any]) -> str:
    return "&".join(f"{name}={params[name]}" for name in sorted(params))


def signed_query(params: dict[str, Any], secret: str = "sim-secret") -> bytes:
    """The parameters percent-encoded, as they go over the wire, with the signature of their plain values behind."""
    written = "&".join(f"{name}={quote(str(params[name]), safe='')}" for name in sorted(params))
    return f"{written}&signature={signature_of(canonical_of(params), secret)}".encode()


class Desk:
    """`post` and `get` sign and send in the query string, the way most clients do."""

    def __init__(self, *, limited: bool = False, seed: int = 1, **settings: Any) -> None:
        if not limited:
            settings.setdefault("limits", {"*": None})
            settings.setdefault("bingx_error_lock_count", 0)
        self.clock = ManualClock(NOW_MS)
        self.simulator = Simulator(
            clock=self.clock, rng=random.Random(seed), settings=Settings.model_validate(settings)
        )

    def place(self, *, count: int = 1, state: str = "live", **fields: Any) -> list[str]:
        """Puts orders into the book; returns their ids, oldest first."""
        filled, closed_ms = fields.pop("filled", None), fields.pop("closed_ms", None)
        entry = Entry(kind=Kind(fields.pop("kind", Kind.order)), **{"symbol": PAIR, **fields})
        return [
            self.simulator.add_order(
                entry, venue="bingx", state=State(state), filled=filled, closed_ms=closed_ms
            ).order_id
            for _ in range(count)
        ]

    def move(self, order_id: str, state: str, filled: str | None = None) -> None:
        self.simulator.move_order(order_id, State(state), venue="bingx", filled=filled)

    def post(self, endpoint: str, **params: Any) -> Answer:
        return self.call("POST", endpoint, params)

    def get(self, endpoint: str, **params: Any) -> Answer:
        return self.call("GET", endpoint, params)

    def call(self, method: str, endpoint: str, params: dict[str, Any], *, secret: str = "sim-secret") -> Answer:
        """A parameter None is left out, a timestamp is added."""
        path = endpoint if endpoint.startswith("/") else f"{TRADE}/{endpoint}"
        sent = {"timestamp": self.clock.wall_us() // 1000, **params}
        query = signed_query({name: value for name, value in sent.items() if value is not None}, secret)
        return self.send(method, path, query)

    def cancel(self, order_id: str, **params: Any) -> Answer:
        return self.post("cancel", **{"symbol": PAIR, "orderId": order_id, **params})

    def send(
        self, method: str, path: str, query: bytes = b"", body: bytes = b"", *, key: str = "sim-key", kind: str = ""
    ) -> Answer:
        headers = {b"x-bx-apikey": key.encode()} if key else {}
        if kind:
            headers[b"content-type"] = kind.encode()
        reply = self.simulator.call(Request(method, path.encode(), query, headers, body))
        while reply.resume is not None:
            self.clock.advance(ms=reply.delay_ms)
            reply = reply.resume()
        held = _read(reply.body)
        return Answer(reply.status, held.get("code", -1), held.get("msg", ""), held.get("data"), reply)

    @property
    def bingx(self) -> Bingx:
        venue = self.simulator.venues["bingx"]
        assert isinstance(venue, Bingx)
        return venue

    def truth(self, order_id: str) -> dict[str, Any]:
        return self.simulator.truth_of([order_id], venue="bingx").entries[0]

    def state(self, order_id: str) -> str:
        return str(self.truth(order_id)["state"])

    def last_call(self) -> dict[str, Any]:
        return self.simulator.calls().entries[-1]


def _read(body: bytes) -> dict[str, Any]:
    try:
        held = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return held if isinstance(held, dict) else {}


def ids_in(answer: Answer) -> list[str]:
    """The order ids of an answer's rows, as text."""
    return [str(row["orderId"]) for row in answer.data["orders"]]
