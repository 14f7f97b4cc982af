"""Signatures over exactly the values that are sent, against vectors computed by another client."""

import hashlib
import hmac
from urllib.parse import parse_qsl

import pytest

from cancelq_worker.venues.bingx import signing
from cancelq_worker.venues.port import Target
from tests.unit.bingx_account import BINGX, KEY, ORDER_ID, SECRET, encode, target

AT_MS = 1_700_000_000_000
TRADE = "/openApi/spot/v1/trade/"
BTC, GM = "1735964079647111280", ("1735964997957275648", "1735965127519326208")

# (parameters without the window, the query as it is sent, its signature)
VECTORS = {
    "cancel by id": (
        {"orderId": BTC, "symbol": "BTC-USDT"},
        f"orderId={BTC}&symbol=BTC-USDT&timestamp=1700000000000",
        "4e30b37f33a0471638d9bddec0b2bf0602a40182c4ba3ede719703e02913694f",
    ),
    "cancel by client id": (
        {"clientOrderID": "my_oid_1", "symbol": "BTC-USDT"},
        "clientOrderID=my_oid_1&symbol=BTC-USDT&timestamp=1700000000000",
        "57817eefdd08277ed5eb7b75e0baa23f4c99af88ec349317b9d78ca03a465d21",
    ),
    "cancel within a window": (
        {"orderId": BTC, "symbol": "BTC-USDT", "recvWindow": "5000"},
        f"orderId={BTC}&recvWindow=5000&symbol=BTC-USDT&timestamp=1700000000000",
        "fbc8edbff66944eda3c49da2222d594ac78c43e92941089c019f6865712a6cd3",
    ),
    "batch by id": (
        {"symbol": "GM-USDT", "process": "1", "orderIds": ",".join(GM)},
        f"orderIds={GM[0]}%2C{GM[1]}&process=1&symbol=GM-USDT&timestamp=1700000000000",
        "1c2e901383a9bb1627098029a221d6fac62df7be2eb2b2f75d6390263e293f4e",
    ),
    "batch by client id": (
        {"symbol": "GM-USDT", "process": "1", "clientOrderIDs": "a1,a2"},
        "clientOrderIDs=a1%2Ca2&process=1&symbol=GM-USDT&timestamp=1700000000000",
        "f6bc52200c550aa3bea4845daeacbb32b64e9b71e2e92d900df1587e3d4583f4",
    ),
    "open orders of a pair, cancelled or listed": (
        {"symbol": "BTC-USDT"},
        "symbol=BTC-USDT&timestamp=1700000000000",
        "d1777cedb2d5ad210ccb7298387c4dc73857f037a8ecba1aba1a90849e0757af",
    ),
    "OCO": (
        {"orderId": BTC},
        f"orderId={BTC}&timestamp=1700000000000",
        "70ea33d001465f49568aeff4caaa9a372b88702e21471e24df573494b82d183d",
    ),
    "switch": (
        {"type": "ACTIVATE", "timeOut": "10"},
        "timeOut=10&timestamp=1700000000000&type=ACTIVATE",
        "8f2d293d286cd475d1c48a35c12d2bb89ba2b31143f4a66710ad4b088e908bb8",
    ),
    "history": (
        {"orderId": BTC, "pageSize": "100", "symbol": "BTC-USDT"},
        f"orderId={BTC}&pageSize=100&symbol=BTC-USDT&timestamp=1700000000000",
        "5acf04ddca7782242fc23dcb025fdd5698da88b3fc822a23b65722ab9b3968ea",
    ),
}


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_vectors(vector: tuple[dict[str, str], str, str]) -> None:
    params, query, signature = vector
    assert signing.signed_query(SECRET, {**params, "timestamp": str(AT_MS)}) == f"{query}&signature={signature}"


def test_the_example_of_the_venue_that_can_be_reproduced() -> None:
    """The ones on its current page cannot: they show one digest for different texts."""
    secret = "UuGuyEGt6ZEkpUObCYCmIfh0elYsZVh80jlYwpJuRZEw70t6vomMH7Sjmf94ztSI"
    params = {"quoteOrderQty": "20", "side": "BUY", "symbol": "ETHUSDT", "timestamp": "1649404670162", "type": "MARKET"}
    expected = "428a3c383bde514baff0d10d3c20e5adfaacaf799e324546dafe5ccc480dd827"
    assert signing.signature(secret, params) == expected


CALLS: dict[str, tuple[str, list[Target], str, str]] = {
    "one by id": ("cancel", [target(BTC)], "cancel", f"orderId={BTC}&W!&symbol=BTC-USDT&T!"),
    "one by client id": (
        "cancel",
        [target(client_order_id="my_oid_1")],
        "cancel",
        "clientOrderID=my_oid_1&W!&symbol=BTC-USDT&T!",
    ),
    "one on a condition": (
        "cancel",
        [target(BTC, only_if="PARTIALLY_FILLED")],
        "cancel",
        f"cancelRestrictions=PARTIALLY_FILLED&orderId={BTC}&W!&symbol=BTC-USDT&T!",
    ),
    "several by id": (
        "cancel-orders",
        [target(i, symbol="GM-USDT") for i in GM],
        "cancelOrders",
        f"orderIds={GM[0]}%2C{GM[1]}&process=1&W!&symbol=GM-USDT&T!",
    ),
    "several by client id": (
        "cancel-orders",
        [target(client_order_id=i, symbol="GM-USDT") for i in ("a1", "a2")],
        "cancelOrders",
        "clientOrderIDs=a1%2Ca2&process=1&W!&symbol=GM-USDT&T!",
    ),
    "all of a pair": ("cancel-open", [target(scope="symbol")], "cancelOpenOrders", "W!&symbol=BTC-USDT&T!"),
    "all of an account": ("cancel-open", [target(scope="account", symbol=None)], "cancelOpenOrders", "W!&T!"),
    "query": ("query", [target(BTC)], "query", f"orderId={BTC}&W!&symbol=BTC-USDT&T!"),
    "open list": ("open", [target(BTC)], "openOrders", "W!&symbol=BTC-USDT&T!"),
    "open list of an account": ("sweep-list", [target(scope="account", symbol=None)], "openOrders", "W!&T!"),
    "history from an id on": (
        "history-one",
        [target(BTC)],
        "historyOrders",
        f"orderId={BTC}&pageSize=100&W!&symbol=BTC-USDT&T!",
    ),
    "history from the smallest of several ids on": (
        "history-page",
        [target(GM[0]), target(BTC), target(GM[1])],
        "historyOrders",
        f"orderId={BTC}&pageSize=100&W!&symbol=BTC-USDT&T!",
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_is_signed_with_its_window(call: tuple[str, list[Target], str, str]) -> None:
    route, targets, endpoint, query = call
    request = encode(route, *targets)
    signed = BINGX.sign(request, AT_MS)
    sent, _, signature = signed.request.query.rpartition("&signature=")
    assert (signed.request.method, signed.request.path) == (request.method, TRADE + endpoint)
    assert request.method == ("GET" if endpoint in ("query", "openOrders", "historyOrders") else "POST")
    assert sent == query.replace("T!", "timestamp=1700000000000").replace("W!", "recvWindow=5000")
    assert signed.request.body == b""
    assert signed.headers == {"X-BX-APIKEY": KEY}
    covered = "&".join(f"{name}={value}" for name, value in parse_qsl(sent))
    assert signature == hmac.new(SECRET.encode(), covered.encode(), hashlib.sha256).hexdigest()


def test_what_is_signed_is_not_percent_encoded() -> None:
    wrong = "60368b77516dad1dd2897692d417300d89df59f82b0cf38d8737914f64d8902f"
    params = {"symbol": "GM-USDT", "process": "1", "orderIds": "%2C".join(GM), "timestamp": str(AT_MS)}
    assert signing.signature(SECRET, params) == wrong, "the vector of the mistake"
    assert (
        wrong
        not in BINGX.sign(encode("cancel-orders", *(target(i, symbol="GM-USDT") for i in GM)), AT_MS).request.query
    )


def test_a_request_can_be_signed_again() -> None:
    """A call is signed when it leaves; the request itself stays as it was."""
    request = encode("cancel", target(ORDER_ID))
    first, later = BINGX.sign(request, AT_MS), BINGX.sign(request, AT_MS + 1)
    assert request.query == f"orderId={ORDER_ID}&symbol=BTC-USDT"
    assert first.request.query != later.request.query
    assert BINGX.sign(request, AT_MS) == first


@pytest.mark.parametrize("value", ["", "a&b", "a=b", "a?b", "a#b", "a,b", "a b", "a\nb", "a\x00b", "a\u2028b", "\t"])
def test_what_would_be_read_as_something_else_is_not_signed(value: str) -> None:
    assert not signing.is_safe(value)


@pytest.mark.parametrize("value", ["a", "my_oid_1", "a.b", "a:b", "a+b", "a/b", "a-b", "a%2Cb", "Ä"])
def test_whatever_reads_the_same_is_signed(value: str) -> None:
    assert signing.is_safe(value)
    assert dict(parse_qsl(signing.query({"x": value}))) == {"x": value}


def test_no_credential_shows() -> None:
    told = repr(signing.Credentials(BINGX._credentials.key, BINGX._credentials.secret)) + repr(BINGX)
    assert KEY not in told
    assert SECRET not in told
