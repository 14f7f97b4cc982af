"""The limits of the simulated BingX: per UID and endpoint, per address, and the lock after too many equal errors."""

import re
from typing import Any

import pytest

from cancelq_worker.simulator import Account
from tests.unit.simulated_bingx import NOW_MS, PAIR, SPOT, UNKNOWN, Answer, Desk, signed_query

LOCK = re.compile(r"over 20 error code:(\d+) requests within 480000 ms for this api, .*can retry after time: (\d{13})$")

LIMITS: list[tuple[str, str, int, dict[str, Any]]] = [
    ("POST", "cancel", 5, {"symbol": PAIR, "orderId": UNKNOWN}),
    ("POST", "cancelOrders", 2, {"symbol": PAIR, "orderIds": UNKNOWN, "process": 1}),
    ("POST", "cancelOpenOrders", 2, {"symbol": PAIR}),
    ("POST", "cancelAllAfter", 2, {"type": "CLOSE"}),
    ("POST", "order", 5, {"symbol": PAIR, "side": "BUY", "type": "LIMIT", "price": "1", "quantity": "1"}),
    ("GET", "query", 10, {"symbol": PAIR, "orderId": UNKNOWN}),
    ("GET", "openOrders", 10, {}),
    ("GET", "historyOrders", 10, {}),
    ("GET", "myTrades", 5, {"symbol": PAIR}),
]


def is_over(answer: Answer) -> bool:
    return answer.code == 100410


@pytest.mark.parametrize(("method", "endpoint", "limit", "params"), LIMITS)
def test_each_endpoint_has_its_own_limit_per_second(
    method: str, endpoint: str, limit: int, params: dict[str, Any]
) -> None:
    desk = Desk(limited=True)
    answers = []
    for _ in range(limit):
        answers.append(desk.call(method, endpoint, params))
        desk.clock.advance(ms=1)
    assert not any(map(is_over, answers))
    assert [answer.limit_headers for answer in answers] == [
        (limit - number, 1_001 - number) for number in range(1, limit + 1)
    ]
    desk.clock.advance(us=999_999 - limit * 1000)
    refused = desk.call(method, endpoint, params)
    assert (refused.status, refused.code, refused.msg, refused.data) == (200, 100410, "rate limited", None)
    assert refused.limit_headers == (0, 1)
    desk.clock.advance(us=1)
    assert not is_over(desk.call(method, endpoint, params))
    [rate] = [rate for rate in desk.simulator.rates() if rate["bucket"] == f"bingx/{endpoint}"]
    assert (rate["owner"], rate["limit"], rate["refused"], rate["worst_admitted"]) == ("1000", limit, 1, limit)
    assert [call["refused"] for call in desk.simulator.calls().entries].count(True) == 1


def test_the_answer_over_a_limit_may_come_as_a_429_and_headers_may_lack_or_tell_the_time() -> None:
    desk = Desk(limited=True, bingx_limit_status=429, limits={"bingx/openOrders": 1})
    desk.get("openOrders")
    assert desk.get("openOrders").status == 429
    desk.simulator.configure({"bingx_limit_expiry": "epoch"})
    assert desk.get("openOrders").limit_headers == (0, NOW_MS + 1_000)
    desk.simulator.configure({"bingx_limit_headers": False})
    assert desk.get("openOrders").limit_headers is None


def test_a_call_over_the_limit_may_close_the_endpoint_until_a_time_that_is_told() -> None:
    desk = Desk(limited=True, bingx_rate_block_ms=60_000)
    for _ in range(10):
        assert not is_over(desk.get("openOrders"))
    told = desk.get("openOrders").msg
    assert told == (
        "code:100410:The endpoint trigger frequency limit rule is currently in the disabled period"
        f" and will be unblocked after {NOW_MS + 60_000}"
    )
    desk.clock.advance(ms=59_999)
    again = desk.get("openOrders")
    # Coming again does not put it off.
    assert (again.code, again.msg) == (100410, told)
    assert not is_over(desk.get("historyOrders"))
    desk.clock.advance(ms=1)
    assert not is_over(desk.get("openOrders"))


@pytest.mark.parametrize(("endpoint", "other", "group"), [("cancel", "order", 3), ("query", "openOrders", 2)])
def test_an_address_has_a_limit_per_endpoint_and_one_per_group(endpoint: str, other: str, group: int) -> None:
    lifted = {"bingx/cancel": None, "bingx/order": None, "bingx/query": None, "bingx/openOrders": None}
    desk = Desk(limited=True, bingx_error_lock_count=0, limits=lifted)
    method = "POST" if group == 3 else "GET"
    answers = [desk.call(method, endpoint, {"symbol": PAIR, "orderId": UNKNOWN}) for _ in range(301)]
    assert [is_over(answer) for answer in answers] == [False] * 300 + [True]
    assert answers[-1].status == 429
    assert not is_over(desk.call(method, other, {"symbol": PAIR}))
    rates = {rate["bucket"]: rate for rate in desk.simulator.rates()}
    assert (rates[f"bingx/ip-{endpoint}"]["limit"], rates[f"bingx/ip-{endpoint}"]["refused"]) == (300, 1)
    assert rates[f"bingx/ip-group-{group}"]["limit"] == 2_000
    desk.clock.advance(ms=10_000)
    desk.simulator.configure({"limits": lifted | {f"bingx/ip-group-{group}": 1}})
    calls = [desk.call(method, one, {"symbol": PAIR}) for one in (endpoint, other)]
    assert [is_over(answer) for answer in calls] == [False, True]


def test_public_endpoints_are_counted_by_address_only() -> None:
    desk = Desk(limited=True)
    answers = [desk.send("GET", f"{SPOT}/server/time", key="") for _ in range(501)]
    assert [answer.status for answer in answers] == [200] * 500 + [429]


def test_two_keys_of_one_uid_share_limits_and_a_wrong_signature_costs_nothing() -> None:
    desk = Desk(limited=True, limits={"bingx/openOrders": 1})
    desk.simulator.add_account(Account("bingx", "second", "sim-secret", "", "1000"))
    for _ in range(3):
        assert desk.call("GET", "openOrders", {}, secret="guess").code == 100001
    assert desk.get("openOrders").code == 0
    query = signed_query({"timestamp": NOW_MS})
    assert is_over(desk.send("GET", f"{SPOT}/trade/openOrders", query, key="second"))


# ---- the lock after equal errors


def errors(desk: Desk, count: int, endpoint: str = "cancel") -> list[int]:
    return [desk.post(endpoint, symbol=PAIR, orderId=UNKNOWN).code for _ in range(count)]


def locking_desk(**settings: Any) -> Desk:
    return Desk(limited=True, limits={"*": None}, **settings)


def test_twenty_equal_errors_lock_the_endpoint_for_a_while() -> None:
    desk = locking_desk()
    [order_id] = desk.place()
    assert errors(desk, 20) == [100404] * 20
    refused = desk.cancel(order_id)
    assert (refused.status, refused.code) == (200, 100410)
    told = LOCK.match(refused.msg)
    assert told is not None
    assert told.groups() == ("100404", str(NOW_MS + 300_000))
    assert desk.last_call()["refused"]
    assert desk.state(order_id) == "live"
    # Other endpoints stay open.
    assert desk.post("cancelOrders", symbol=PAIR, orderIds=UNKNOWN, process=1).code == 0
    assert desk.get("query", symbol=PAIR, orderId=UNKNOWN).code == 100404
    desk.clock.advance(ms=299_999)
    assert desk.cancel(order_id).msg == refused.msg
    desk.clock.advance(ms=1)
    assert desk.cancel(order_id).code == 0
    assert errors(desk, 20) == [100404] * 20


def test_another_uid_is_not_locked_out() -> None:
    desk = locking_desk()
    desk.simulator.add_account(Account("bingx", "other", "sim-secret", "", "2000"))
    errors(desk, 20)
    assert is_over(desk.cancel(UNKNOWN))
    query = signed_query({"orderId": UNKNOWN, "symbol": PAIR, "timestamp": NOW_MS})
    assert desk.send("POST", f"{SPOT}/trade/cancel", query, key="other").code == 100404


def test_errors_of_different_codes_are_counted_apart() -> None:
    desk = locking_desk()
    [dead] = desk.place(state="filled")
    assert errors(desk, 19) == [100404] * 19
    assert [desk.cancel(dead).code for _ in range(19)] == [100400] * 19
    assert not is_over(desk.post("cancel"))
    assert LOCK.match(desk.cancel(UNKNOWN).msg)


def test_only_errors_within_eight_minutes_count() -> None:
    desk = locking_desk()
    errors(desk, 1)
    desk.clock.advance(ms=479_999)
    errors(desk, 18)
    desk.clock.advance(ms=1)
    assert errors(desk, 2) == [100404] * 2
    assert is_over(desk.cancel(UNKNOWN))


def test_what_fails_inside_a_batch_does_not_count_and_neither_does_an_order_on_a_fault() -> None:
    desk = locking_desk()
    for _ in range(30):
        answer = desk.post("cancelOrders", symbol=PAIR, orderIds=f"{UNKNOWN},1", process=1)
        assert (answer.code, len(answer.data["fails"])) == (0, 2)
    assert [desk.post("cancelOrders", symbol=PAIR, orderIds=UNKNOWN).code for _ in range(20)] == [100404] * 20
    assert is_over(desk.post("cancelOrders", symbol=PAIR, orderIds=UNKNOWN, process=1))


def test_number_window_and_length_of_the_lock_can_be_chosen_and_a_reset_opens_it() -> None:
    desk = locking_desk(bingx_error_lock_count=2, bingx_error_lock_window_ms=1_000, bingx_error_lock_ms=5_000)
    errors(desk, 1)
    desk.clock.advance(ms=1_000)
    assert errors(desk, 2) == [100404] * 2
    told = desk.cancel(UNKNOWN).msg
    assert told.startswith("over 2 error code:100404 requests within 1000 ms")
    assert told.endswith(str(NOW_MS + 6_000))
    desk.simulator.reset()
    assert errors(desk, 2) == [100404] * 2
    desk.simulator.configure({"bingx_error_lock_count": 0})
    desk.clock.advance(ms=5_000)
    assert errors(desk, 100) == [100404] * 100
