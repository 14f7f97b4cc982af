"""A Bitget account with made-up credentials, and short ways to write targets and answers."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from cancelq_worker.venues.bitget.adapter import Bitget
from cancelq_worker.venues.bitget.signing import Credentials
from cancelq_worker.venues.port import Answer, Reply, Request, Route, Target

KEY, SECRET, PASSPHRASE = "test-api-key", "test-api-secret", "test-passphrase"

ORDER_ID, OTHER_ID = "121211212122", "121211212123"


def account(*, demo: bool = False) -> Bitget:
    return Bitget(Credentials(SecretStr(KEY), SecretStr(SECRET), SecretStr(PASSPHRASE), demo))


BITGET = account()
ROUTES: dict[str, Route] = {route.name: route for route in BITGET.routes}


def target(
    order_id: str | None = None,
    client_order_id: str | None = None,
    *,
    scope: str = "order",
    symbol: str | None = "BTCUSDT",
    notes: Mapping[str, Any] | None = None,
    may_cancel: bool = True,
    age_band_ms: tuple[int, int] | None = (0, 0),
    **fields: str,
) -> Target:
    """What a call names; the fields as a producer wrote them."""
    named = {"scope": scope, "symbol": symbol, "order_id": order_id, "client_order_id": client_order_id, **fields}
    given = {name: value for name, value in named.items() if value is not None}
    return Target(given, dict(notes or {}), age_band_ms, may_cancel)


def answer(data: Any = None, *, code: Any = "00000", status: int = 200, msg: str = "success") -> Answer:
    """An answer in the form all of Bitget's answers have."""
    document = {"code": code, "msg": msg, "requestTime": 1700000000000, "data": data}
    return raw(json.dumps(document).encode(), status)


def raw(body: bytes, status: int = 200) -> Answer:
    return Answer(status, {"content-type": "application/json"}, body)


def encode(route: str, *targets: Target) -> Request:
    return BITGET.encode(ROUTES[route], targets)


def decode(route: str, said: Answer, *targets: Target) -> list[Reply]:
    return BITGET.decode(ROUTES[route], targets, said)
