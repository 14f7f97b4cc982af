"""Bybit calls, byte for byte, against those of other clients: ccxt, and Bybit's own pybit."""

import json
from collections.abc import Mapping
from typing import Any

import ccxt  # type: ignore[import-untyped]  # it ships without types
from hypothesis import given, settings
from hypothesis import strategies as st
from pybit._http_manager import generate_signature  # type: ignore[import-untyped]  # the same
from pybit.unified_trading import HTTP  # type: ignore[import-untyped]  # the same

from cancelq_worker.venues.port import Request, Target
from tests.unit.bitget_account import target
from tests.unit.bybit_account import BYBIT, KEY, SECRET, encode


class Ccxt(ccxt.bybit):  # type: ignore[misc]  # the same
    """ccxt's client with a clock that stands still."""

    now_ms = 0

    def nonce(self) -> int:
        return self.now_ms


CCXT = Ccxt({"apiKey": KEY, "secret": SECRET, "options": {"recvWindow": 5000}})
HOST = "https://api.bybit.com"

SYMBOLS = st.from_regex(r"[A-Z0-9]{2,16}", fullmatch=True)
ORDER_IDS = st.from_regex(r"[1-9][0-9]{5,18}", fullmatch=True)
# What Bybit allows in an orderLinkId.
CLIENT_IDS = st.from_regex(r"[0-9A-Za-z_-]{1,36}", fullmatch=True)
# As captured: percent-encoded already.
CURSORS = st.builds(
    "{0}%3A{1}%2C{2}%3A{1}".format, ORDER_IDS, st.integers(1_600_000_000_000, 1_999_999_999_999), ORDER_IDS
)
TIMES_MS = st.integers(1_600_000_000_000, 1_999_999_999_999)
SOME = settings(max_examples=60)


def check(request: Request, endpoint: str, params: Mapping[str, Any], now_ms: int) -> None:
    """The same method, URL, body and signature as ccxt makes of the same parameters, and as pybit signs them."""
    CCXT.now_ms = now_ms
    theirs = CCXT.sign(f"v5/order/{endpoint}", "private", request.method, dict(params))
    query = f"?{request.query}" if request.query else ""
    assert HOST + request.path + query == theirs["url"]
    assert request.body.decode() == (theirs["body"] or "")
    ours = BYBIT.sign(request, now_ms).headers
    for name in ("X-BAPI-API-KEY", "X-BAPI-SIGN", "X-BAPI-TIMESTAMP", "X-BAPI-RECV-WINDOW"):
        assert ours[name] == theirs["headers"][name], name
    payload = HTTP.prepare_payload(request.method, dict(params))
    if request.method == "GET":
        assert sorted(request.query.split("&")) == sorted(payload.split("&"))
    else:
        assert json.loads(payload) == json.loads(request.body)
    covered = request.query or request.body.decode()
    assert ours["X-BAPI-SIGN"] == generate_signature(False, SECRET, f"{now_ms}{KEY}5000{covered}")


@SOME
@given(SYMBOLS, ORDER_IDS, CLIENT_IDS, TIMES_MS)
def test_single_cancels(symbol: str, order_id: str, client_id: str, now_ms: int) -> None:
    named = {"category": "spot", "symbol": symbol}
    filters: dict[str, dict[str, str]] = {
        "order": {},
        "tpsl": {"orderFilter": "tpslOrder"},
        "stop": {"orderFilter": "StopOrder"},
    }
    for scope, filter_ in filters.items():
        by_id = encode("cancel", target(order_id, scope=scope, symbol=symbol))
        check(by_id, "cancel", {**named, "orderId": order_id, **filter_}, now_ms)
        by_client_id = encode("cancel", target(client_order_id=client_id, scope=scope, symbol=symbol))
        check(by_client_id, "cancel", {**named, "orderLinkId": client_id, **filter_}, now_ms)
        pair = encode("cancel-all", target(scope="symbol", symbol=symbol, kinds=scope))
        check(pair, "cancel-all", {**named, **filter_}, now_ms)
        account = encode("cancel-all", target(scope="account", symbol=None, kinds=scope))
        check(account, "cancel-all", {"category": "spot", **filter_}, now_ms)


@SOME
@given(st.lists(st.tuples(SYMBOLS, ORDER_IDS, st.booleans()), min_size=1, max_size=10), TIMES_MS)
def test_batches(orders: list[tuple[str, str, bool]], now_ms: int) -> None:
    """Pairs and id kinds mixed."""
    targets: list[Target] = [
        target(i, symbol=s) if by_id else target(client_order_id=i, symbol=s) for s, i, by_id in orders
    ]
    items = [{"symbol": s, "orderId" if by_id else "orderLinkId": i} for s, i, by_id in orders]
    check(encode("cancel-batch", *targets), "cancel-batch", {"category": "spot", "request": items}, now_ms)


@SOME
@given(ORDER_IDS, CLIENT_IDS, TIMES_MS)
def test_looks(order_id: str, client_id: str, now_ms: int) -> None:
    for route in ("realtime", "history"):
        check(encode(route, target(order_id)), route, {"category": "spot", "orderId": order_id}, now_ms)
        by_client_id = encode(route, target(client_order_id=client_id))
        check(by_client_id, route, {"category": "spot", "orderLinkId": client_id}, now_ms)


@SOME
@given(st.one_of(SYMBOLS, st.none()), st.one_of(CURSORS, st.just("")), TIMES_MS)
def test_lists(symbol: str | None, cursor: str, now_ms: int) -> None:
    sweep = target(scope="symbol" if symbol else "account", symbol=symbol, notes={"sweep": {"at": cursor}})
    for route, filter_ in (
        ("sweep-list-order", "Order"),
        ("sweep-list-tpsl", "tpslOrder"),
        ("sweep-list-stop", "StopOrder"),
    ):
        params = {"category": "spot", "symbol": symbol, "openOnly": "0", "limit": "50", "orderFilter": filter_}
        params |= {"cursor": cursor} if cursor else {}
        check(encode(route, sweep), "realtime", {k: v for k, v in params.items() if v}, now_ms)


def test_the_probe_is_signed_alike() -> None:
    check(BYBIT.probe_request(), "realtime", {"category": "spot", "limit": "1"}, 1_700_000_000_000)


def test_the_question_about_a_key_is_signed_alike() -> None:
    request = BYBIT.rights_request()
    assert request is not None
    CCXT.now_ms = 1_700_000_000_000
    theirs = CCXT.sign("v5/user/query-api", "private", "GET", {})
    assert HOST + request.path == theirs["url"].removesuffix("?")
    assert BYBIT.sign(request, CCXT.now_ms).headers["X-BAPI-SIGN"] == theirs["headers"]["X-BAPI-SIGN"]
