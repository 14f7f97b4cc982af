"""BingX calls, byte for byte, against those of another client: ccxt."""

from collections.abc import Mapping
from typing import Any

import ccxt  # type: ignore[import-untyped]  # it ships without types
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.port import Request
from tests.unit.bingx_account import BINGX, KEY, SECRET, account, encode, target


class Ccxt(ccxt.bingx):  # type: ignore[misc]  # the same
    """ccxt's client with a clock that stands still."""

    now_ms = 0

    def nonce(self) -> int:
        return self.now_ms


CCXT = Ccxt({"apiKey": KEY, "secret": SECRET})
HOST = "https://open-api.bingx.com"

SYMBOLS = st.from_regex(r"[A-Z0-9]{1,12}-(USDT|USDC|BTC)", fullmatch=True)
ORDER_IDS = st.integers(1, 2**63 - 1).map(str)
# What BingX allows in a client id is a part of what it may be asked about.
CLIENT_IDS = st.from_regex(r"[0-9A-Za-z_.:+/-]{1,40}", fullmatch=True)
TIMES_MS = st.integers(1_600_000_000_000, 1_999_999_999_999)
SOME = settings(max_examples=60)


def check(request: Request, endpoint: str, params: Mapping[str, Any], now_ms: int) -> None:
    """The same method, URL, body and signature as ccxt makes of the same parameters."""
    CCXT.now_ms = now_ms
    whole = {**params, "recvWindow": 5000}
    theirs = CCXT.sign(f"trade/{endpoint}", ["spot", "v1", "private"], request.method, whole)
    ours = BINGX.sign(request, now_ms)
    assert f"{HOST}{ours.request.path}?{ours.request.query}" == theirs["url"]
    assert ours.request.method == theirs["method"]
    assert ours.request.body == (theirs["body"] or b"")
    assert ours.headers["X-BX-APIKEY"] == theirs["headers"]["X-BX-APIKEY"]


@SOME
@given(SYMBOLS, ORDER_IDS, CLIENT_IDS, TIMES_MS)
def test_single_cancels(symbol: str, order_id: str, client_id: str, now_ms: int) -> None:
    by_id = encode("cancel", target(order_id, symbol=symbol))
    check(by_id, "cancel", {"symbol": symbol, "orderId": order_id}, now_ms)
    by_client_id = encode("cancel", target(client_order_id=client_id, symbol=symbol))
    check(by_client_id, "cancel", {"symbol": symbol, "clientOrderID": client_id}, now_ms)
    on_condition = encode("cancel", target(order_id, symbol=symbol, only_if="PENDING"))
    wanted = {"symbol": symbol, "orderId": order_id, "cancelRestrictions": "PENDING"}
    check(on_condition, "cancel", wanted, now_ms)
    trigger = encode("cancel-seen", target(order_id, scope="stop", symbol=symbol))
    check(trigger, "cancel", {"symbol": symbol, "orderId": order_id}, now_ms)
    bulk = encode("cancel-open", target(scope="symbol", symbol=symbol))
    check(bulk, "cancelOpenOrders", {"symbol": symbol}, now_ms)


@SOME
@given(SYMBOLS, st.lists(ORDER_IDS, min_size=1, max_size=10, unique=True), TIMES_MS)
def test_batches_by_order_id(symbol: str, ids: list[str], now_ms: int) -> None:
    request = encode("cancel-orders", *(target(i, symbol=symbol) for i in ids))
    params = {"symbol": symbol, "orderIds": ",".join(ids), "process": 1}
    check(request, "cancelOrders", params, now_ms)
    todo = [{"id": i, "symbol": symbol} for i in ids]
    sweep = target(scope="symbol", symbol=symbol, notes={"sweep": {"todo": todo}})
    check(encode("sweep-cancel", sweep), "cancelOrders", params, now_ms)


@SOME
@given(SYMBOLS, st.lists(CLIENT_IDS, min_size=1, max_size=10, unique=True), TIMES_MS)
def test_batches_by_client_id(symbol: str, ids: list[str], now_ms: int) -> None:
    request = encode("cancel-orders", *(target(client_order_id=i, symbol=symbol) for i in ids))
    params = {"symbol": symbol, "clientOrderIDs": ",".join(ids), "process": 1}
    check(request, "cancelOrders", params, now_ms)


@SOME
@given(SYMBOLS, ORDER_IDS, CLIENT_IDS, TIMES_MS, st.integers(2, 100))
def test_looks(symbol: str, order_id: str, client_id: str, now_ms: int, page: int) -> None:
    one = target(order_id, symbol=symbol)
    check(encode("query", one), "query", {"symbol": symbol, "orderId": order_id}, now_ms)
    named = target(client_order_id=client_id, symbol=symbol)
    check(encode("query", named), "query", {"symbol": symbol, "clientOrderID": client_id}, now_ms)
    check(encode("open", one), "openOrders", {"symbol": symbol}, now_ms)
    check(encode("sweep-list", target(scope="account", symbol=None)), "openOrders", {}, now_ms)
    first = {"symbol": symbol, "orderId": order_id, "pageSize": 100}
    check(encode("history-one", one), "historyOrders", first, now_ms)
    later = target(order_id, symbol=symbol, notes={"walk": {"by": "i", "at": page}})
    begin = {**first, "orderId": str(max(1, int(order_id) >> 41 << 41)), "pageIndex": page}
    check(encode("history-on", later), "historyOrders", begin, now_ms)
    walk = target(client_order_id=client_id, symbol=symbol, notes={"walk": {"by": "c", "at": page}})
    check(encode("history-walk", walk), "historyOrders", {"symbol": symbol, "pageSize": 100, "pageIndex": page}, now_ms)


def test_an_account_has_no_say_in_what_is_signed() -> None:
    request = encode("cancel", target("1"))
    assert account({"cancel": 1}, 5).sign(request, 1) == BINGX.sign(request, 1)


def test_the_question_about_a_key_is_signed_alike() -> None:
    request = BINGX.rights_request()
    assert request is not None
    CCXT.now_ms = 1_700_000_000_000
    theirs = CCXT.sign("account/apiPermissions", ["account", "v1", "private"], "GET", {"recvWindow": 5000})
    ours = BINGX.sign(request, CCXT.now_ms).request
    assert f"{HOST}{ours.path}?{ours.query}" == theirs["url"]
