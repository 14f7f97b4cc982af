"""A BingX account with made-up credentials, and short ways to write targets and answers."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from cancelq_worker.venues.bingx.adapter import Bingx
from cancelq_worker.venues.bingx.signing import Credentials
from cancelq_worker.venues.port import Answer, Reply, Request, Route, Target

KEY, SECRET = "test-api-key", "test-api-secret"

#: Neither survives a float.
ORDER_ID, OTHER_ID = "1735964079647111281", "1735965127519326209"
#: The venue's own id as a double would round it.
ROUNDED_ID = "1735964079647111168"
PAIR = "BTC-USDT"


def account(limits: Mapping[str, int] | None = None, batch_size: int | None = None) -> Bingx:
    return Bingx(Credentials(SecretStr(KEY), SecretStr(SECRET)), limits, batch_size)


BINGX = account()
ROUTES: dict[str, Route] = {route.name: route for route in BINGX.routes}


def target(
    order_id: str | None = None,
    client_order_id: str | None = None,
    *,
    scope: str = "order",
    symbol: str | None = PAIR,
    notes: Mapping[str, Any] | None = None,
    may_cancel: bool = True,
    age_band_ms: tuple[int, int] | None = (0, 0),
    **fields: str,
) -> Target:
    """What a call names; the fields as a producer wrote them."""
    named = {"scope": scope, "symbol": symbol, "order_id": order_id, "client_order_id": client_order_id, **fields}
    given = {name: value for name, value in named.items() if value is not None}
    return Target(given, dict(notes or {}), age_band_ms, may_cancel)


def row(order_id: str = ORDER_ID, status: str = "CANCELED", **more: Any) -> dict[str, Any]:
    """An order as BingX writes it: its id a number."""
    made: dict[str, Any] = {
        "symbol": PAIR,
        "orderId": int(order_id),
        "price": "100",
        "origQty": "1",
        "executedQty": "0",
        "cummulativeQuoteQty": "0",
        "status": status,
        "type": "LIMIT",
        "side": "BUY",
        "time": 1_700_000_000_000,
        "clientOrderID": "",
    }
    return {name: value for name, value in {**made, **more}.items() if value is not None}


def answer(data: Any = None, *, code: Any = 0, status: int = 200, msg: str = "") -> Answer:
    """An answer in the form all of BingX's answers have."""
    document: dict[str, Any] = {"code": code, "msg": msg, "debugMsg": ""}
    if data is not None:
        document["data"] = data
    return raw(json.dumps(document).encode(), status)


def listed(*rows: dict[str, Any]) -> Answer:
    return answer({"orders": list(rows)})


def raw(body: bytes, status: int = 200) -> Answer:
    return Answer(status, {"content-type": "application/json"}, body)


def encode(route: str, *targets: Target) -> Request:
    return BINGX.encode(ROUTES[route], targets)


def decode(route: str, said: Answer, *targets: Target) -> list[Reply]:
    return BINGX.decode(ROUTES[route], targets, said)
