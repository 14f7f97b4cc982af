"""What the simulated Bybit asks of a call before it listens: key, clock, signature, shape.

The signatures are the known ones of Bybit's scheme: key `test-api-key`, secret `test-api-secret`, window 5000, at
1700000000000; compact bodies as ccxt sends them, spaced ones as pybit does.
"""

import orjson
import pytest

from cancelq_worker.simulator import Account, Fault
from tests.unit.bybit_desk import NOW_MS, BybitDesk, bybit_headers

CANCEL, BATCH, ALL = "/v5/order/cancel", "/v5/order/cancel-batch", "/v5/order/cancel-all"
ID = "1523347543495541248"
SPACED = f'{{"category": "spot", "symbol": "BTCUSDT", "orderId": "{ID}"}}'
VECTORS = [
    (
        CANCEL,
        f'{{"category":"spot","symbol":"BTCUSDT","orderId":"{ID}"}}',
        "85b2a842659d15b85ae3bb8ef0618c1b87565f1835bf627259434a3682026b42",
    ),
    (CANCEL, SPACED, "1b99df0f178a55fb34cb0f0d8a668b552fa8505915e1d38092384b3a624a152c"),
    (
        CANCEL,
        '{"category":"spot","symbol":"BTCUSDT","orderLinkId":"spot-test-cancel"}',
        "5113c3898c7e5f617563e7e6479df8cd932db458ba5d3ce7acfbe69ce5b47431",
    ),
    (
        CANCEL,
        f'{{"category":"spot","symbol":"BTCUSDT","orderId":"{ID}","orderFilter":"tpslOrder"}}',
        "0a1452ed968dd0446998af03d578f661d0e8148e7191288a4391a1492368313a",
    ),
    (
        CANCEL,
        f'{{"category":"spot","symbol":"BTCUSDT","orderId":"{ID}","orderFilter":"StopOrder"}}',
        "e5ba8b844c3b60c68333e12d8ec95d5100e1bcc4b041cfd74417f4426d4485c9",
    ),
    (
        BATCH,
        '{"category":"spot","request":[{"symbol":"BTCUSDT","orderId":"1666800494330512128"},'
        '{"symbol":"ATOMUSDT","orderLinkId":"1666800494330512129"}]}',
        "9984ac813a04009456feac2d97a02fdae85de2778c9613285b4431b2bee9676e",
    ),
    (
        BATCH,
        '{"category": "spot", "request": [{"symbol": "BTCUSDT", "orderId": "1666800494330512128"}, '
        '{"symbol": "ATOMUSDT", "orderLinkId": "1666800494330512129"}]}',
        "85a9d02c00222979861ab96bbd6fe48562dc141053433f9ba85baaa11dac658b",
    ),
    (
        ALL,
        '{"category":"spot","symbol":"BTCUSDT"}',
        "bd8ba3695a54337a919a281d6ee897f156f224714dc5a608bbf1bf9b471956bc",
    ),
    (
        ALL,
        '{"category": "spot", "symbol": "BTCUSDT"}',
        "683177a41e34a2647b59697543a25178e082b98f5b1398c418594e83ba5cd28b",
    ),
    (
        ALL,
        '{"category":"spot","symbol":"BTCUSDT","orderFilter":"tpslOrder"}',
        "12a3fec109690a6bb095670b9d3fdd6fe54cc2875ac55421f953f50337f02ee7",
    ),
    (
        f"/v5/order/realtime?category=spot&orderId={ID}",
        "",
        "7855856fe235d29a28f5f9e20c8ada9ff73f301b1fce9cea7cd2f4a066c458f4",
    ),
    # The path is not signed, so this is the same signature.
    (
        f"/v5/order/history?category=spot&orderId={ID}",
        "",
        "7855856fe235d29a28f5f9e20c8ada9ff73f301b1fce9cea7cd2f4a066c458f4",
    ),
    (
        "/v5/order/realtime?category=spot&symbol=BTCUSDT&openOnly=0&limit=50",
        "",
        "9341dc39691e59881d224865db6d89f9fd6f05119a98cf097e0ffe3d94baea21",
    ),
]
# A recipe that goes round signs Python's way of writing a dict, and sends JSON.
SIGNED_AS_PYTHON = "49a766f179e67e5b4d3f5874f62d24c11aa78b9e27d94e048a0d9e39a0deeca4"
DOORKEEPERS = {10001, 10002, 10003, 10004, 10005}


@pytest.fixture
def desk() -> BybitDesk:
    desk = BybitDesk()
    desk.simulator.add_account(Account("bybit", "test-api-key", "test-api-secret", "", uid="2000"))
    return desk


def vector_headers(signature: str) -> dict[str, str]:
    headers = bybit_headers(b"", NOW_MS, key="test-api-key")
    return {**headers, "X-BAPI-SIGN": signature}


@pytest.mark.parametrize(("target", "body", "signature"), VECTORS)
def test_the_known_signatures_are_accepted(desk: BybitDesk, target: str, body: str, signature: str) -> None:
    answer = desk.send_raw("POST" if body else "GET", target, body.encode(), vector_headers(signature))
    assert answer.status == 200
    assert answer.code not in DOORKEEPERS
    assert desk.simulator.calls().entries[-1]["executed"]


@pytest.mark.parametrize(("target", "body", "signature"), VECTORS)
def test_one_changed_byte_is_refused(desk: BybitDesk, target: str, body: str, signature: str) -> None:
    changed = (body.replace("spot", "spat"), target) if body else ("", target.replace("spot", "spat"))
    answer = desk.send_raw("POST" if body else "GET", changed[1], changed[0].encode(), vector_headers(signature))
    assert (answer.status, answer.code, answer.result) == (200, 10004, {})
    assert not desk.simulator.calls().entries[-1]["executed"]


def test_a_signature_over_pythons_way_of_writing_it_is_refused(desk: BybitDesk) -> None:
    answer = desk.send_raw("POST", CANCEL, SPACED.encode(), vector_headers(SIGNED_AS_PYTHON))
    assert answer.code == 10004


def test_a_signature_is_lower_case_hex(desk: BybitDesk) -> None:
    target, body, signature = VECTORS[0]
    assert desk.send_raw("POST", target, body.encode(), vector_headers(signature.upper())).code == 10004


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"X-BAPI-API-KEY": ""}, 10001),
        ({"X-BAPI-SIGN": ""}, 10001),
        ({"X-BAPI-TIMESTAMP": ""}, 10001),
        ({"X-BAPI-TIMESTAMP": "soon"}, 10001),
        ({"X-BAPI-RECV-WINDOW": "long"}, 10001),
        ({"X-BAPI-API-KEY": "nobody"}, 10003),
        ({"X-BAPI-TIMESTAMP": str(NOW_MS + 1)}, 10004),
        ({"X-BAPI-RECV-WINDOW": "5001"}, 10004),
    ],
)
def test_each_wrong_header_has_its_code(desk: BybitDesk, changed: dict[str, str], code: int) -> None:
    target, body, signature = VECTORS[0]
    answer = desk.send_raw("POST", target, body.encode(), vector_headers(signature) | changed)
    assert (answer.status, answer.code, answer.result, answer.ext) == (200, code, {}, {})


def test_without_its_window_header_a_call_has_five_seconds(desk: BybitDesk) -> None:
    def code(late_ms: int) -> int | None:
        query = b"category=spot"
        headers = bybit_headers(query, NOW_MS - late_ms, recv_window="")
        return desk.send_raw("GET", "/v5/order/realtime?category=spot", b"", headers).code

    assert (code(5_000), code(5_001)) == (0, 10002)


@pytest.mark.parametrize(
    ("ahead_ms", "recv_window", "code"),
    [
        (0, "5000", 0),
        (999, "5000", 0),
        (1_000, "5000", 10002),
        (1_000, "60000", 10002),
        (-5_000, "5000", 0),
        (-5_001, "5000", 10002),
        (-5_001, "10000", 0),
    ],
)
def test_a_call_may_be_late_by_its_window_and_early_by_less_than_a_second(
    ahead_ms: int, recv_window: str, code: int
) -> None:
    desk = BybitDesk()
    headers = bybit_headers(b"category=spot", NOW_MS + ahead_ms, recv_window=recv_window)
    answer = desk.send_raw("GET", "/v5/order/realtime?category=spot", b"", headers)
    assert answer.code == code
    if code:
        assert f"req_timestamp[{NOW_MS + ahead_ms}],server_timestamp[{NOW_MS}]" in answer.msg


def test_the_venues_clock_can_be_asked_and_may_be_wrong() -> None:
    desk = BybitDesk(clock_offset_ms=90_000)
    answer = desk.send_raw("GET", "/v5/market/time", b"", {})
    held = orjson.loads(answer.reply.body)
    assert held["time"] == NOW_MS + 90_000
    assert held["result"] == {
        "timeSecond": str((NOW_MS + 90_000) // 1000),
        "timeNano": f"{NOW_MS + 90_000}000000",
    }
    assert desk.realtime().code == 10002


def test_a_key_that_may_only_read_may_not_cancel() -> None:
    desk = BybitDesk(bybit_read_only_keys=["sim-key"])
    [order_id] = desk.place()
    assert desk.cancel(order_id).code == 10005
    assert desk.realtime(orderId=order_id).ids == [order_id]
    assert desk.get("/v5/user/query-api").result["readOnly"] == 1


def test_a_key_of_another_environment_is_unknown() -> None:
    desk = BybitDesk()
    desk.simulator.add_account(Account("bybit", "demo", "s", "", uid="3000", demo=True))

    def codes() -> list[int | None]:
        return [
            desk.post(ALL, {"category": "spot"}, key=key, secret=secret).code
            for key, secret in (("sim-key", "sim-secret"), ("demo", "s"))
        ]

    assert codes() == [0, 0]
    desk.simulator.configure({"bybit_environment": "main"})
    assert codes() == [0, 10003]
    desk.simulator.configure({"bybit_environment": "demo"})
    assert codes() == [10003, 0]


def test_a_demo_account_has_no_batches_and_no_page_about_its_key() -> None:
    desk = BybitDesk()
    desk.simulator.add_account(Account("bybit", "demo", "s", "", uid="1000", demo=True))
    [order_id] = desk.place()
    item = {"symbol": "BTCUSDT", "orderId": order_id}
    for path in (BATCH, "/v5/order/create-batch"):
        assert desk.post(path, {"category": "spot", "request": [item]}, key="demo", secret="s").code == 10032
    assert desk.send("GET", "/v5/user/query-api", b"", b"", key="demo", secret="s").code == 10032
    assert desk.post(CANCEL, {"category": "spot", **item}, key="demo", secret="s").code == 0
    assert desk.state(order_id) == "cancelled"


@pytest.mark.parametrize("body", [b"{}", b"x"])
def test_a_get_with_a_body_is_forbidden(desk: BybitDesk, body: bytes) -> None:
    answer = desk.send("GET", "/v5/order/realtime?category=spot", b"category=spot", body)
    assert (answer.status, answer.code) == (403, None)
    assert b"too frequent" not in answer.reply.body


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"'])
def test_a_body_that_is_no_object_is_refused(desk: BybitDesk, body: bytes) -> None:
    assert desk.post(CANCEL, body).code == 10001
    assert desk.post(BATCH, body).code == 10001


@pytest.mark.parametrize("category", ["linear", "", None, 7])
def test_there_is_nothing_but_spot(desk: BybitDesk, category: object) -> None:
    asked = {"category": category, "symbol": "BTCUSDT", "orderId": "1"}
    for path in (CANCEL, ALL, "/v5/order/create"):
        assert desk.post(path, asked).code == 10001
    assert desk.post(BATCH, {**asked, "request": [asked]}).code == 10001
    for path in ("/v5/order/realtime", "/v5/order/history", "/v5/execution/list"):
        assert desk.get(path, category=str(category)).code == 10001


def test_a_path_that_does_not_exist_is_told_so(desk: BybitDesk) -> None:
    for method, target in (("GET", "/v5/order/nothing"), ("GET", CANCEL), ("POST", "/v5/order/realtime")):
        answer = desk.send_raw(method, target, b"", {})
        assert (answer.status, answer.code) == (404, 10017)


def test_the_venues_of_one_simulator_do_not_share_keys_or_orders(desk: BybitDesk) -> None:
    [order_id] = desk.place()
    assert desk.simulator.truth_of([order_id], venue="bitget").entries == []
    desk.simulator.add_fault(Fault("http_500", endpoint="bitget/cancel"))
    assert desk.cancel(order_id).code == 0
