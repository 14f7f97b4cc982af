"""A Bybit account with made-up credentials, and short ways to write answers and calls."""

import json
from typing import Any

from pydantic import SecretStr

from cancelq_worker.venues.bybit.adapter import Bybit
from cancelq_worker.venues.bybit.signing import Credentials
from cancelq_worker.venues.port import Answer, Reply, Request, Route, Target

KEY, SECRET = "test-api-key", "test-api-secret"

ORDER_ID, OTHER_ID = "1523347543495541248", "1666800494330512128"
NOW_MS = 1_700_000_000_000


def account(**options: Any) -> Bybit:
    return Bybit(Credentials(SecretStr(KEY), SecretStr(SECRET)), **options)


BYBIT = account()
ROUTES: dict[str, Route] = {route.name: route for route in BYBIT.routes}


def answer(
    result: Any = None, *, code: Any = 0, status: int = 200, msg: Any = "OK", ext: Any = None, **headers: str
) -> Answer:
    """An answer in the form all of Bybit's answers have."""
    document = {"retCode": code, "retMsg": msg, "result": result, "retExtInfo": ext or {}, "time": NOW_MS}
    return raw(json.dumps(document).encode(), status, **headers)


def raw(body: bytes, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"content-type": "application/json", **named}, body)


def batch(rows: Any, outcomes: Any, **more: Any) -> Answer:
    """An answer to a batch: its two lists."""
    return answer({"list": rows}, ext={"list": outcomes}, **more)


def listed(*rows: Any, cursor: str = "", **more: Any) -> Answer:
    """An answer with orders."""
    return answer({"nextPageCursor": cursor, "category": "spot", "list": list(rows)}, **more)


def row(order_id: Any = ORDER_ID, status: Any = "New", **more: Any) -> dict[str, Any]:
    """An order as lists show it."""
    return {
        "orderId": order_id,
        "orderLinkId": "",
        "symbol": "BTCUSDT",
        "orderStatus": status,
        "cancelType": "UNKNOWN",
        "stopOrderType": "",
        "cumExecQty": "0",
        "createdTime": str(NOW_MS),
        **more,
    }


def encode(route: str, *targets: Target) -> Request:
    return BYBIT.encode(ROUTES[route], targets)


def decode(route: str, said: Answer, *targets: Target) -> list[Reply]:
    return BYBIT.decode(ROUTES[route], targets, said)
