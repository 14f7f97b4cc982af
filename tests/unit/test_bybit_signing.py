"""Bybit's signature: the vectors of its checked facts, byte for byte."""

import pytest
from pydantic import SecretStr

from cancelq_worker.venues.bybit import signing
from cancelq_worker.venues.port import Request, Target
from tests.unit.bitget_account import target
from tests.unit.bybit_account import BYBIT, KEY, NOW_MS, SECRET, encode

ID = "1523347543495541248"
CREDENTIALS = signing.Credentials(SecretStr(KEY), SecretStr(SECRET))
BATCH = (
    target("1666800494330512128"),
    target(client_order_id="1666800494330512129", symbol="ATOMUSDT"),
)
PAIR = target(scope="symbol")

# (route, targets, path, body, signature)
CANCELS: list[tuple[str, tuple[Target, ...], str, str, str]] = [
    (
        "cancel",
        (target(ID),),
        "/v5/order/cancel",
        '{"category":"spot","symbol":"BTCUSDT","orderId":"1523347543495541248"}',
        "85b2a842659d15b85ae3bb8ef0618c1b87565f1835bf627259434a3682026b42",
    ),
    (
        "cancel",
        (target(client_order_id="spot-test-cancel"),),
        "/v5/order/cancel",
        '{"category":"spot","symbol":"BTCUSDT","orderLinkId":"spot-test-cancel"}',
        "5113c3898c7e5f617563e7e6479df8cd932db458ba5d3ce7acfbe69ce5b47431",
    ),
    (
        "cancel",
        (target(ID, scope="tpsl"),),
        "/v5/order/cancel",
        '{"category":"spot","symbol":"BTCUSDT","orderId":"1523347543495541248","orderFilter":"tpslOrder"}',
        "0a1452ed968dd0446998af03d578f661d0e8148e7191288a4391a1492368313a",
    ),
    (
        "cancel",
        (target(ID, scope="stop"),),
        "/v5/order/cancel",
        '{"category":"spot","symbol":"BTCUSDT","orderId":"1523347543495541248","orderFilter":"StopOrder"}',
        "e5ba8b844c3b60c68333e12d8ec95d5100e1bcc4b041cfd74417f4426d4485c9",
    ),
    (
        "cancel-batch",
        BATCH,
        "/v5/order/cancel-batch",
        '{"category":"spot","request":[{"symbol":"BTCUSDT","orderId":"1666800494330512128"},'
        '{"symbol":"ATOMUSDT","orderLinkId":"1666800494330512129"}]}',
        "9984ac813a04009456feac2d97a02fdae85de2778c9613285b4431b2bee9676e",
    ),
    (
        "cancel-all",
        (PAIR,),
        "/v5/order/cancel-all",
        '{"category":"spot","symbol":"BTCUSDT"}',
        "bd8ba3695a54337a919a281d6ee897f156f224714dc5a608bbf1bf9b471956bc",
    ),
    (
        "cancel-all",
        (target(scope="symbol", kinds="tpsl"),),
        "/v5/order/cancel-all",
        '{"category":"spot","symbol":"BTCUSDT","orderFilter":"tpslOrder"}',
        "12a3fec109690a6bb095670b9d3fdd6fe54cc2875ac55421f953f50337f02ee7",
    ),
]

BY_ID = "7855856fe235d29a28f5f9e20c8ada9ff73f301b1fce9cea7cd2f4a066c458f4"

# The same calls as another client spaces them: valid as well, because it signs what it sends.
SPACED = [
    (
        '{"category": "spot", "symbol": "BTCUSDT", "orderId": "1523347543495541248"}',
        "1b99df0f178a55fb34cb0f0d8a668b552fa8505915e1d38092384b3a624a152c",
    ),
    (
        '{"category": "spot", "request": [{"symbol": "BTCUSDT", "orderId": "1666800494330512128"}, '
        '{"symbol": "ATOMUSDT", "orderLinkId": "1666800494330512129"}]}',
        "85a9d02c00222979861ab96bbd6fe48562dc141053433f9ba85baaa11dac658b",
    ),
    (
        '{"category": "spot", "symbol": "BTCUSDT"}',
        "683177a41e34a2647b59697543a25178e082b98f5b1398c418594e83ba5cd28b",
    ),
]


@pytest.mark.parametrize(("route", "targets", "path", "body", "sign"), CANCELS)
def test_cancels(route: str, targets: tuple[Target, ...], path: str, body: str, sign: str) -> None:
    request = encode(route, *targets)
    assert (request.method, request.path, request.query, request.body.decode()) == ("POST", path, "", body)
    signed = BYBIT.sign(request, NOW_MS)
    assert signed.request is request
    assert signed.headers == {
        "X-BAPI-API-KEY": KEY,
        "X-BAPI-TIMESTAMP": "1700000000000",
        "X-BAPI-RECV-WINDOW": "5000",
        "X-BAPI-SIGN": sign,
        "Content-Type": "application/json",
    }


@pytest.mark.parametrize("route", ["realtime", "history"])
def test_looks_by_id(route: str) -> None:
    """Neither path nor method is signed: both carry one signature."""
    request = encode(route, target(ID))
    assert (request.method, request.path, request.body) == ("GET", f"/v5/order/{route}", b"")
    assert request.query == f"category=spot&orderId={ID}"
    assert BYBIT.sign(request, NOW_MS).headers["X-BAPI-SIGN"] == BY_ID


def test_a_list() -> None:
    request = encode("sweep-list-order", PAIR)
    assert request.query == "category=spot&symbol=BTCUSDT&openOnly=0&limit=50&orderFilter=Order"
    bare = Request("GET", request.path, request.query.removesuffix("&orderFilter=Order"))
    sign = "9341dc39691e59881d224865db6d89f9fd6f05119a98cf097e0ffe3d94baea21"
    assert BYBIT.sign(bare, NOW_MS).headers["X-BAPI-SIGN"] == sign


@pytest.mark.parametrize(("body", "sign"), SPACED)
def test_whatever_bytes_are_sent_are_signed(body: str, sign: str) -> None:
    request = Request("POST", "/v5/order/cancel", body=body.encode())
    assert signing.signature(CREDENTIALS, request, NOW_MS) == sign


def test_no_secret_is_shown() -> None:
    assert SECRET not in repr(CREDENTIALS)
    assert KEY not in repr(CREDENTIALS)
