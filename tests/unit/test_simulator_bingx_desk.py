"""What the simulated BingX asks of a call before it does anything: key, clock, signature, permission."""

from typing import Any

import orjson
import pytest

from cancelq_worker.simulator import Account
from tests.unit.simulated_bingx import NOW_MS, PAIR, SPOT, TRADE, UNKNOWN, Answer, Desk, canonical_of, signature_of

# Made with the secret test-api-secret; percent-encoded as they go over the wire.
VECTORS = [
    (
        "POST",
        "trade/cancel?orderId=1735964079647111280&symbol=BTC-USDT&timestamp=1700000000000",
        "4e30b37f33a0471638d9bddec0b2bf0602a40182c4ba3ede719703e02913694f",
    ),
    (
        "POST",
        "trade/cancel?clientOrderID=my_oid_1&symbol=BTC-USDT&timestamp=1700000000000",
        "57817eefdd08277ed5eb7b75e0baa23f4c99af88ec349317b9d78ca03a465d21",
    ),
    (
        "POST",
        "trade/cancel?orderId=1735964079647111280&recvWindow=5000&symbol=BTC-USDT&timestamp=1700000000000",
        "fbc8edbff66944eda3c49da2222d594ac78c43e92941089c019f6865712a6cd3",
    ),
    (
        "POST",
        "trade/cancelOrders?orderIds=1735964997957275648%2C1735965127519326208&process=1&symbol=GM-USDT"
        "&timestamp=1700000000000",
        "1c2e901383a9bb1627098029a221d6fac62df7be2eb2b2f75d6390263e293f4e",
    ),
    (
        "POST",
        "trade/cancelOrders?clientOrderIDs=a1%2Ca2&process=1&symbol=GM-USDT&timestamp=1700000000000",
        "f6bc52200c550aa3bea4845daeacbb32b64e9b71e2e92d900df1587e3d4583f4",
    ),
    (
        "POST",
        "trade/cancelOpenOrders?symbol=BTC-USDT&timestamp=1700000000000",
        "d1777cedb2d5ad210ccb7298387c4dc73857f037a8ecba1aba1a90849e0757af",
    ),
    (
        "POST",
        "trade/cancelAllAfter?timeOut=10&timestamp=1700000000000&type=ACTIVATE",
        "8f2d293d286cd475d1c48a35c12d2bb89ba2b31143f4a66710ad4b088e908bb8",
    ),
    (
        "GET",
        "trade/query?orderId=1735964079647111280&symbol=BTC-USDT&timestamp=1700000000000",
        "4e30b37f33a0471638d9bddec0b2bf0602a40182c4ba3ede719703e02913694f",
    ),
    (
        "GET",
        "trade/openOrders?symbol=BTC-USDT&timestamp=1700000000000",
        "d1777cedb2d5ad210ccb7298387c4dc73857f037a8ecba1aba1a90849e0757af",
    ),
    (
        "GET",
        "trade/historyOrders?orderId=1735964079647111280&pageSize=100&symbol=BTC-USDT&timestamp=1700000000000",
        "5acf04ddca7782242fc23dcb025fdd5698da88b3fc822a23b65722ab9b3968ea",
    ),
]
# The same batch of ids with the encoded form signed instead of the plain one.
ENCODED_SIGNATURE = "60368b77516dad1dd2897692d417300d89df59f82b0cf38d8737914f64d8902f"


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.simulator.add_account(Account("bingx", "test-api-key", "test-api-secret", "", uid="2000"))
    return desk


def send_vector(desk: Desk, method: str, target: str, signature: str) -> Answer:
    path, _, query = target.partition("?")
    return desk.send(method, f"{SPOT}/{path}", f"{query}&signature={signature}".encode(), key="test-api-key")


@pytest.mark.parametrize(("method", "target", "signature"), VECTORS)
def test_the_known_signatures_are_accepted(desk: Desk, method: str, target: str, signature: str) -> None:
    answer = send_vector(desk, method, target, signature)
    assert answer.code not in (100001, 100412, 100413)
    assert desk.last_call()["executed"]


@pytest.mark.parametrize(("method", "target", "signature"), VECTORS)
def test_one_changed_byte_is_refused(desk: Desk, method: str, target: str, signature: str) -> None:
    for changed in (target.replace("=", "=1", 1), target.replace("1700000000000", "1700000000001")):
        answer = send_vector(desk, method, changed, signature)
        assert (answer.status, answer.code, answer.data) == (200, 100001, None)
        assert not desk.last_call()["executed"]


def test_the_values_are_signed_before_they_are_encoded(desk: Desk) -> None:
    method, target, signature = VECTORS[3]
    assert send_vector(desk, method, target, ENCODED_SIGNATURE).code == 100001
    assert send_vector(desk, method, target.replace("%2C", ","), signature).code != 100001
    assert send_vector(desk, method, target.replace("%2C", ","), ENCODED_SIGNATURE).code == 100001


def test_neither_path_nor_method_is_signed(desk: Desk) -> None:
    cancel, query = VECTORS[0], VECTORS[7]
    assert cancel[2] == query[2]
    # So a look-up that somebody logged can be replayed as a cancel.
    answer = send_vector(desk, "POST", cancel[1], query[2])
    assert (answer.code, answer.msg) == (100404, " order not exist")


def transported(desk: Desk, way: str, params: dict[str, Any], signature: str) -> Answer:
    """The same parameters in the query string, in a form, or in a JSON body."""
    plain = f"{canonical_of(params)}&signature={signature}".encode()
    match way:
        case "query":
            return desk.send("POST", f"{TRADE}/cancel", plain)
        case "form":
            return desk.send("POST", f"{TRADE}/cancel", b"", plain, kind="application/x-www-form-urlencoded")
        case "split":
            head, _, tail = plain.partition(b"&")
            return desk.send("POST", f"{TRADE}/cancel", head, tail, kind="application/x-www-form-urlencoded")
        case _:
            body = orjson.dumps({**params, "signature": signature})
            return desk.send("POST", f"{TRADE}/cancel", b"", body, kind="application/json")


@pytest.mark.parametrize("way", ["query", "form", "split", "json"])
def test_parameters_may_travel_in_the_query_a_form_or_a_json_body(way: str) -> None:
    desk = Desk()
    first, second = desk.place(count=2)
    params: dict[str, Any] = {"symbol": PAIR, "orderId": first, "timestamp": NOW_MS}
    assert transported(desk, way, params, signature_of(canonical_of(params))).data["orderId"] == int(first)
    assert desk.state(first) == "cancelled"
    params["orderId"] = second
    assert transported(desk, way, params, signature_of("orderId=1")).code == 100001
    assert desk.state(second) == "live"


def test_numbers_of_a_json_body_are_signed_as_they_are_written() -> None:
    desk = Desk()
    [order_id] = desk.place()
    params = {"symbol": PAIR, "orderId": int(order_id), "recvWindow": 5000, "timestamp": NOW_MS}
    assert transported(desk, "json", params, signature_of(canonical_of(params))).code == 0


def test_numbers_of_a_json_body_keep_the_spelling_that_was_signed() -> None:
    desk = Desk()
    canonical = f"price=0.10&quantity=1.50&side=BUY&symbol={PAIR}&timestamp={NOW_MS}&type=LIMIT"
    body = (
        f'{{"price":0.10,"quantity":1.50,"side":"BUY","symbol":"{PAIR}","timestamp":{NOW_MS},"type":"LIMIT",'
        f'"signature":"{signature_of(canonical)}"}}'
    )
    answer = desk.send("POST", f"{TRADE}/order", b"", body.encode(), kind="application/json")
    assert (answer.code, answer.data["price"], answer.data["origQty"]) == (0, "0.10", "1.50")


def test_the_order_of_a_query_does_not_matter_but_that_of_a_json_body_is_the_sorted_one() -> None:
    desk = Desk()
    first, second = desk.place(count=2)
    unsorted = f"timestamp={NOW_MS}&symbol={PAIR}&orderId={first}"
    query = f"{unsorted}&signature={signature_of(unsorted)}".encode()
    assert desk.send("POST", f"{TRADE}/cancel", query).code == 0
    unsorted = f"timestamp={NOW_MS}&symbol={PAIR}&orderId={second}"
    body = {"timestamp": NOW_MS, "symbol": PAIR, "orderId": second, "signature": signature_of(unsorted)}
    answer = desk.send("POST", f"{TRADE}/cancel", b"", orjson.dumps(body), kind="application/json")
    assert answer.code == 100001


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"'])
def test_a_json_body_that_is_no_object_is_refused(body: bytes) -> None:
    assert Desk().send("POST", f"{TRADE}/cancel", b"", body, kind="application/json").code == 100400


@pytest.mark.parametrize(
    ("query", "key", "code", "told"),
    [
        (f"timestamp={NOW_MS}&signature=x", "", 100413, "Incorrect apiKey"),
        (f"timestamp={NOW_MS}&signature=x", "nobody", 100413, "Incorrect apiKey"),
        (f"timestamp={NOW_MS}", "sim-key", 100412, "Null signature"),
        ("signature=x", "sim-key", 100421, "Null timestamp or timestamp mismatch"),
        ("timestamp=soon&signature=x", "sim-key", 80014, "timestamp is invalid"),
        (f"timestamp={NOW_MS}&signature=x", "sim-key", 100001, "Signature verification failed"),
    ],
)
def test_each_thing_that_is_missing_or_wrong_has_its_code(query: str, key: str, code: int, told: str) -> None:
    answer = Desk().send("GET", f"{TRADE}/openOrders", query.encode(), key=key)
    assert (answer.status, answer.code, answer.data) == (200, code, None)
    assert answer.msg.startswith(told)
    assert orjson.loads(answer.reply.body)["timestamp"] == NOW_MS


@pytest.mark.parametrize(
    ("ahead_ms", "window", "code"),
    [
        (0, None, 0),
        (5_000, None, 0),
        (5_001, None, 100421),
        (-5_001, None, 100421),
        (1_001, 1_000, 100421),
        (6_000, 6_000, 0),
    ],
)
def test_a_call_must_be_within_its_window_of_the_venues_clock(ahead_ms: int, window: int | None, code: int) -> None:
    desk = Desk(clock_offset_ms=ahead_ms)
    assert desk.get("openOrders", recvWindow=window).code == code
    for path in (f"{SPOT}/server/time", "/openApi/swap/v2/server/time"):
        assert desk.send("GET", path, key="").data == {"serverTime": NOW_MS + ahead_ms}


def test_a_key_without_the_permission_may_look_but_not_touch() -> None:
    desk = Desk(bingx_read_only_keys=["sim-key"])
    [order_id] = desk.place()
    assert desk.get("query", symbol=PAIR, orderId=order_id).code == 0
    refused = desk.cancel(order_id)
    assert refused.code == 100004
    assert "Spot Trading permission" in refused.msg
    assert desk.post("cancelAllAfter", type="CLOSE").code == 100004
    assert desk.state(order_id) == "live"


def test_refusals_may_come_with_another_status() -> None:
    desk = Desk(bingx_error_status=400)
    refused = desk.cancel(UNKNOWN)
    assert (refused.status, refused.code) == (400, 100404)
    assert desk.send("GET", f"{TRADE}/openOrders", key="").status == 400


def test_a_path_that_does_not_exist_says_so_with_the_code_of_a_wrong_parameter() -> None:
    desk = Desk()
    for method, path in (("POST", "/openApi/spot/v2/trade/cancel"), ("GET", f"{TRADE}/cancel")):
        answer = desk.call(method, path, {"symbol": PAIR, "orderId": UNKNOWN})
        assert (answer.status, answer.code) == (200, 100400)
        assert answer.msg.startswith("this api is not exist")
