"""The simulator's limiter never lets more through than the venue would, and refuses nothing it need not."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker.simulator.limits import Limiter, Rule, UnknownBucketError, Window
from tests.unit.test_simulator_desk import Desk

SPAN_US = 1_000


@given(
    limit=st.integers(0, 6),
    steps=st.lists(st.tuples(st.integers(0, 700), st.integers(1, 3)), max_size=80),
)
def test_any_window_holds_at_most_the_limit_and_no_refusal_is_needless(
    limit: int, steps: list[tuple[int, int]]
) -> None:
    window = Window(Rule(limit, SPAN_US))
    at_us = 0
    admitted: list[int] = []
    arrived: list[int] = []
    for step_us, units in steps:
        at_us += step_us
        inside = sum(at_us - one_us < SPAN_US for one_us in admitted)
        took = window.admit(at_us, units)
        assert took == (inside + units <= limit)
        arrived += [at_us] * units
        if took:
            admitted += [at_us] * units
    assert all(admitted[i + limit] - admitted[i] >= SPAN_US for i in range(len(admitted) - limit))
    assert window.admitted == len(admitted)
    assert window.refused == len(arrived) - len(admitted)
    assert window.worst == worst(admitted)
    assert window.arrived_worst == worst(arrived)


def worst(times: list[int]) -> int:
    return max((sum(one - SPAN_US < other <= one for other in times) for one in times), default=0)


def test_a_bucket_with_a_penalty_stays_closed_until_it_is_over() -> None:
    window = Window(Rule(2, 100, penalty_us=1_000))
    assert [window.admit(at_us) for at_us in (0, 1, 2)] == [True, True, False]
    assert [window.admit(at_us) for at_us in (150, 1_001, 1_002)] == [False, False, True]


def test_overrides_replace_each_other_and_keep_what_was_counted() -> None:
    limiter = Limiter()
    limiter.declare("v/a", Rule(2, SPAN_US))
    limiter.declare("v/b", Rule(1, SPAN_US))
    assert all(limiter.window("v/a", "x").admit(0) for _ in range(2))
    limiter.override({"*": None, "v/b": (3, 50)})
    assert limiter.window("v/a", "x").admit(1)
    assert limiter.window("v/b", "x").rule == Rule(3, 50_000)
    limiter.override({"v/a": 4})
    assert [limiter.window("v/a", "x").admit(2) for _ in range(2)] == [True, False]
    assert limiter.window("v/b", "y").rule == Rule(1, SPAN_US)
    with pytest.raises(UnknownBucketError, match=r"no bucket v/c; there are v/a, v/b, or '\*'"):
        limiter.override({"v/c": 1})


LIMITS = [
    ("cancel-order", 10, {"symbol": "BTCUSDT", "orderId": "1"}),
    ("batch-cancel-order", 10, {"symbol": "BTCUSDT", "orderList": [{"orderId": "1"}]}),
    ("cancel-symbol-order", 5, {"symbol": "BTCUSDT"}),
    ("cancel-plan-order", 20, {"orderId": "1"}),
    ("batch-cancel-plan-order", 5, {}),
    ("orderInfo", 20, None),
    ("unfilled-orders", 20, None),
    ("history-orders", 20, None),
    ("current-plan-order", 20, None),
    ("history-plan-order", 20, None),
    ("plan-sub-order", 20, None),
    ("fills", 10, None),
]


@pytest.mark.parametrize(("endpoint", "limit", "body"), LIMITS)
def test_each_endpoint_has_its_own_limit_per_second(endpoint: str, limit: int, body: dict[str, Any] | None) -> None:
    desk = Desk(limited=True)

    def call() -> Any:
        return desk.get(endpoint) if body is None else desk.post(endpoint, body)

    remaining = []
    for _ in range(limit):
        answer = call()
        assert answer.status != 429
        remaining.append(answer.remaining)
        desk.clock.advance(ms=1)
    assert all(later == earlier - 1 for earlier, later in pairwise(remaining) if earlier)
    desk.clock.advance(us=999_999 - limit * 1000)
    refused = call()
    assert (refused.status, refused.code, refused.msg) == (429, "429", "Too Many Requests")
    assert refused.data is None
    desk.clock.advance(us=1)
    assert call().status != 429
    [rate] = [rate for rate in desk.simulator.rates() if rate["bucket"] == f"bitget/{endpoint}"]
    assert (rate["limit"], rate["refused"], rate["worst_admitted"]) == (limit, 1, limit)
    assert rate["worst_arrived"] == limit + 1
    logged = desk.simulator.calls().entries
    assert [call["refused"] for call in logged].count(True) == 1


def test_the_quota_counts_down_to_nothing() -> None:
    desk = Desk(limited=True)
    assert [desk.get("fills").remaining for _ in range(11)] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]
    desk.simulator.configure({"bitget_remain_header": False})
    assert desk.get("fills").remaining is None


def test_two_keys_of_one_uid_share_limits_and_orders() -> None:
    from_one, from_two = Desk(limited=True, limits={"bitget/fills": 1}), "second-key"
    simulator = from_one.simulator
    account = simulator.core.accounts["bitget", "sim-key"]
    simulator.add_account(type(account)("bitget", from_two, account.secret, account.passphrase, account.uid))
    assert from_one.get("fills").status == 200
    headers = {"ACCESS_KEY": from_two}
    assert from_one.send("GET", "/api/v2/spot/trade/fills", b"", **headers).status == 429


def test_an_address_is_shut_out_for_five_minutes_after_its_limit() -> None:
    desk = Desk(limited=True, limits={"*": None, "bitget/ip": 3})

    def status() -> int:
        return desk.get("unfilled-orders").status

    assert [status() for _ in range(4)] == [200, 200, 200, 429]
    desk.clock.advance(ms=299_999)
    assert status() == 429
    desk.clock.advance(ms=1)
    assert status() == 200


def test_calls_without_a_right_signature_cost_the_account_nothing() -> None:
    desk = Desk(limited=True, limits={"bitget/fills": 1})
    for _ in range(5):
        assert desk.send("GET", "/api/v2/spot/trade/fills", b"", ACCESS_SIGN="x").code == "40009"
    assert desk.get("fills").status == 200
