"""Bitget calls, byte for byte, against those of another client: ccxt."""

from collections.abc import Mapping
from typing import Any

import ccxt  # type: ignore[import-untyped]  # it ships without types
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.port import Request, Target
from tests.unit.bitget_account import BITGET, KEY, PASSPHRASE, SECRET, account, encode, target


class Ccxt(ccxt.bitget):  # type: ignore[misc]  # the same
    """ccxt's client with a clock that stands still."""

    now_ms = 0

    def nonce(self) -> int:
        return self.now_ms


CCXT = Ccxt({"apiKey": KEY, "secret": SECRET, "password": PASSPHRASE})
HOST = "https://api.bitget.com"

SYMBOLS = st.from_regex(r"[A-Z0-9]{2,16}", fullmatch=True)
ORDER_IDS = st.from_regex(r"[1-9][0-9]{5,18}", fullmatch=True)
# What Bitget allows in a clientOid.
CLIENT_IDS = st.from_regex(r"[0-9A-Za-z+_#-]{1,49}", fullmatch=True)
TIMES_MS = st.integers(1_600_000_000_000, 1_999_999_999_999)
SOME = settings(max_examples=60)


def check(request: Request, endpoint: str, params: Mapping[str, Any], now_ms: int) -> None:
    """The same method, URL, body and signature as ccxt makes of the same parameters."""
    CCXT.now_ms = now_ms
    theirs = CCXT.sign(f"v2/spot/trade/{endpoint}", ["private", "spot"], request.method, dict(params))
    query = f"?{request.query}" if request.query else ""
    assert HOST + request.path + query == theirs["url"]
    assert request.body.decode() == (theirs["body"] or "")
    ours = BITGET.sign(request, now_ms).headers
    for name in ("ACCESS-KEY", "ACCESS-SIGN", "ACCESS-TIMESTAMP", "ACCESS-PASSPHRASE"):
        assert ours[name] == theirs["headers"][name], name


@SOME
@given(SYMBOLS, ORDER_IDS, CLIENT_IDS, TIMES_MS)
def test_single_cancels(symbol: str, order_id: str, client_id: str, now_ms: int) -> None:
    by_id = encode("cancel-order", target(order_id, symbol=symbol))
    check(by_id, "cancel-order", {"symbol": symbol, "orderId": order_id}, now_ms)
    by_client_id = encode("cancel-order", target(client_order_id=client_id, symbol=symbol))
    check(by_client_id, "cancel-order", {"symbol": symbol, "clientOid": client_id}, now_ms)
    tpsl = encode("cancel-order", target(order_id, scope="tpsl", symbol=symbol))
    check(tpsl, "cancel-order", {"tpslType": "tpsl", "orderId": order_id}, now_ms)
    plan = encode("cancel-plan-order", target(order_id, scope="stop", symbol=symbol))
    check(plan, "cancel-plan-order", {"orderId": order_id}, now_ms)
    plan = encode("cancel-plan-order", target(client_order_id=client_id, scope="stop"))
    check(plan, "cancel-plan-order", {"clientOid": client_id}, now_ms)
    bulk = encode("cancel-symbol-order", target(scope="symbol", symbol=symbol))
    check(bulk, "cancel-symbol-order", {"symbol": symbol}, now_ms)


@SOME
@given(
    st.lists(st.tuples(SYMBOLS, ORDER_IDS), min_size=2, max_size=50, unique=True),
    st.booleans(),
    st.booleans(),
    TIMES_MS,
)
def test_batches(orders: list[tuple[str, str]], one_symbol: bool, by_client_id: bool, now_ms: int) -> None:
    first = orders[0][0]
    named = [(first if one_symbol else symbol, order_id) for symbol, order_id in orders]
    kind = "clientOid" if by_client_id else "orderId"
    targets: list[Target] = [
        target(client_order_id=i, symbol=s) if by_client_id else target(i, symbol=s) for s, i in named
    ]
    params: dict[str, Any]
    if len({symbol for symbol, _ in named}) == 1:
        params = {"symbol": first, "batchMode": "single", "orderList": [{kind: i} for _, i in named]}
    else:
        params = {"batchMode": "multiple", "orderList": [{"symbol": s, kind: i} for s, i in named]}
    check(encode("batch-cancel-order", *targets), "batch-cancel-order", params, now_ms)


@SOME
@given(SYMBOLS, ORDER_IDS, TIMES_MS)
def test_looks_by_order_id(symbol: str, order_id: str, now_ms: int) -> None:
    one = target(order_id, symbol=symbol)
    check(encode("order-info", one), "orderInfo", {"orderId": order_id}, now_ms)
    page = {"orderId": order_id, "limit": "100", "symbol": symbol}
    check(encode("open", one), "unfilled-orders", page, now_ms)
    check(encode("history", one), "history-orders", page, now_ms)
    check(encode("tpsl-open", one), "unfilled-orders", {**page, "tpslType": "tpsl"}, now_ms)
    plan = {"idLessThan": str(int(order_id) + 1), "limit": "100", "symbol": symbol}
    check(encode("stop-open", one), "current-plan-order", plan, now_ms)
    check(encode("stop-history", one), "history-plan-order", plan, now_ms)
    sweep = target(scope="symbol", symbol=symbol, notes={"sweep": {"at": order_id}})
    listed = {"symbol": symbol, "limit": "100", "idLessThan": order_id}
    check(encode("sweep-list-order", sweep), "unfilled-orders", listed, now_ms)
    check(encode("sweep-list-tpsl", sweep), "unfilled-orders", {**listed, "tpslType": "tpsl"}, now_ms)


@SOME
@given(CLIENT_IDS, TIMES_MS)
def test_looks_by_client_id(client_id: str, now_ms: int) -> None:
    """Signed as it is, sent encoded: that differs for `#` and `+`, both allowed in a clientOid."""
    check(encode("order-info", target(client_order_id=client_id)), "orderInfo", {"clientOid": client_id}, now_ms)


def test_a_demo_key_is_told_by_the_same_header() -> None:
    sandbox = Ccxt({"apiKey": KEY, "secret": SECRET, "password": PASSPHRASE})
    sandbox.set_sandbox_mode(True)
    theirs = sandbox.sign("v2/spot/trade/cancel-order", ["private", "spot"], "POST", {"symbol": "BTCUSDT"})
    ours = account(demo=True).sign(encode("cancel-order", target("1")), 1).headers
    header = {name.lower(): value for name, value in theirs["headers"].items() if "pap" in name.lower()}
    assert (
        header == {name.lower(): value for name, value in ours.items() if "pap" in name.lower()} == {"paptrading": "1"}
    )


def test_the_question_about_a_key_is_signed_alike() -> None:
    request = BITGET.rights_request()
    assert request is not None
    CCXT.now_ms = 1_700_000_000_000
    theirs = CCXT.sign("v2/spot/account/info", ["private", "spot"], "GET", {})
    assert HOST + request.path == theirs["url"]
    assert BITGET.sign(request, CCXT.now_ms).headers["ACCESS-SIGN"] == theirs["headers"]["ACCESS-SIGN"]
