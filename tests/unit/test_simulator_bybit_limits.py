"""How much the simulated Bybit lets through: per endpoint and UID, order by order in batches, and per address."""

import pytest

from cancelq_worker.simulator import Account
from tests.unit.bybit_desk import NOW_MS, BybitDesk, bybit_headers

SPOT = "category=spot"


@pytest.fixture
def desk() -> BybitDesk:
    return BybitDesk(limited=True)


def headers_of(answer_headers: dict[str, str]) -> tuple[int, int, int]:
    return (
        int(answer_headers["x-bapi-limit"]),
        int(answer_headers["x-bapi-limit-status"]),
        int(answer_headers["x-bapi-limit-reset-timestamp"]),
    )


def test_twenty_cancels_fit_into_any_second(desk: BybitDesk) -> None:
    ids = desk.place(count=30)
    for number, order_id in enumerate(ids[:20]):
        answer = desk.cancel(order_id)
        assert answer.code == 0
        assert headers_of(answer.headers) == (20, 19 - number, NOW_MS + 10 * number)
        desk.clock.advance(ms=10)
    over = desk.cancel(ids[20])
    assert (over.status, over.code, over.result) == (200, 10006, {})
    # The first unit is free again a second after it was taken.
    assert headers_of(over.headers) == (20, 0, NOW_MS + 1_000)
    assert desk.state(ids[20]) == "live"
    assert desk.simulator.calls().entries[-1]["refused"]
    desk.clock.advance(ms=799)
    assert desk.cancel(ids[20]).code == 10006
    desk.clock.advance(ms=1)
    assert desk.cancel(ids[20]).code == 0
    assert desk.cancel(ids[21]).code == 10006


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/v5/order/realtime", 50),
        ("/v5/order/history", 50),
        ("/v5/execution/list", 50),
    ],
)
def test_each_query_has_a_limit_of_its_own(desk: BybitDesk, path: str, limit: int) -> None:
    assert [desk.get(path, category="spot").code for _ in range(limit + 1)] == [0] * limit + [10006]
    assert desk.post("/v5/order/cancel-all", {"category": "spot"}).code == 0


def test_cancel_all_has_a_limit_of_its_own(desk: BybitDesk) -> None:
    codes = [desk.post("/v5/order/cancel-all", {"category": "spot"}).code for _ in range(21)]
    assert codes == [0] * 20 + [10006]
    assert desk.cancel(desk.place()[0]).code == 0


def test_in_a_batch_every_order_counts_and_the_last_ones_fail_alone(desk: BybitDesk) -> None:
    ids = desk.place(count=35)
    assert desk.cancel_batch(ids[:8]).outcomes == [0] * 8
    assert desk.cancel_batch(ids[8:15]).outcomes == [0] * 7
    answer = desk.cancel_batch(ids[15:25])
    assert answer.code == 0
    assert answer.outcomes == [0] * 5 + [10006] * 5
    assert answer.ids == ids[15:20] + [""] * 5
    assert headers_of(answer.headers)[1] == 0
    assert {desk.state(one) for one in ids[:20]} == {"cancelled"}
    assert {desk.state(one) for one in ids[20:]} == {"live"}
    call = desk.simulator.calls().entries[-1]
    assert (call["refused"], call["failed_items"], call["executed"]) == (True, 5, True)
    # Single cancels have a budget beside it.
    assert desk.cancel(ids[25]).code == 0
    desk.clock.advance(ms=1_000)
    assert desk.cancel_batch(ids[20:30]).outcomes.count(10006) == 0


@pytest.mark.parametrize(("setting", "code"), [("items", 0), ("whole", 10006)])
def test_a_batch_without_any_room_is_refused_as_set(setting: str, code: int) -> None:
    desk = BybitDesk(limited=True, bybit_batch_spent=setting)
    ids = desk.place(count=30)
    desk.cancel_batch(ids[:10])
    desk.cancel_batch(ids[10:20])
    answer = desk.cancel_batch(ids[20:30])
    assert answer.code == code
    if code == 0:
        assert answer.outcomes == [10006] * 10
    assert {desk.state(one) for one in ids[20:]} == {"live"}


def test_a_batch_that_cannot_be_read_takes_one_unit(desk: BybitDesk) -> None:
    junk = {"category": "spot", "request": [{}] * 11}
    codes = [desk.post("/v5/order/cancel-batch", junk).code for _ in range(21)]
    assert codes == [10001] * 20 + [10006]


def test_the_budget_belongs_to_the_uid_not_to_the_key(desk: BybitDesk) -> None:
    for key, uid in (("second", "1000"), ("third", "2000")):
        desk.simulator.add_account(Account("bybit", key, "s", "", uid=uid))
    [order_id] = desk.place()
    for _ in range(20):
        desk.cancel(order_id)
    asked = {"category": "spot", "symbol": "BTCUSDT", "orderId": order_id}
    assert desk.post("/v5/order/cancel", asked, key="second", secret="s").code == 10006
    assert desk.post("/v5/order/cancel", asked, key="third", secret="s").code == 170213


def test_an_address_over_its_limit_is_shut_out_for_ten_minutes() -> None:
    desk = BybitDesk(limits={"bybit/realtime": None})

    def ask(ip: str = "10.0.0.1") -> tuple[int, bytes]:
        headers = bybit_headers(SPOT.encode(), desk.clock.wall_us() // 1000)
        answer = desk.send_raw("GET", f"/v5/order/realtime?{SPOT}", b"", headers, ip=ip)
        return answer.status, answer.reply.body

    assert {ask()[0] for _ in range(600)} == {200}
    assert ask() == (403, b"access too frequent")
    call = desk.simulator.calls().entries[-1]
    assert (call["refused"], call["executed"], call["http_status"]) == (True, False, 403)
    assert ask("10.0.0.2")[0] == 200
    desk.clock.advance(ms=599_999)
    assert ask()[0] == 403
    desk.clock.advance(ms=1)
    assert ask()[0] == 200


def test_six_hundred_calls_fit_into_any_five_seconds() -> None:
    desk = BybitDesk(limits={"bybit/realtime": None})
    assert {desk.realtime().status for _ in range(600)} == {200}
    desk.clock.advance(ms=5_000)
    assert {desk.realtime().status for _ in range(600)} == {200}
    desk.clock.advance(ms=4_999)
    assert desk.realtime().status == 403


def test_limits_can_be_changed_lifted_and_kept_quiet(desk: BybitDesk) -> None:
    desk.simulator.configure({"limits": {"bybit/realtime": 2}})
    answers = [desk.realtime() for _ in range(3)]
    assert [answer.code for answer in answers] == [0, 0, 10006]
    assert headers_of(answers[0].headers)[:2] == (2, 1)
    desk.simulator.configure({"limits": {"bybit/realtime": None}})
    assert "x-bapi-limit" not in desk.realtime().headers
    desk.simulator.configure({"limits": {}, "bybit_limit_headers": False})
    assert desk.history().headers == {}


def test_a_refused_call_carries_the_headers_as_well(desk: BybitDesk) -> None:
    assert headers_of(desk.cancel("1").headers)[:2] == (20, 19)
    assert headers_of(desk.post("/v5/order/cancel", b"{").headers)[:2] == (20, 18)
    # Nobody knows whose these would be.
    assert desk.realtime().code == 0
    assert desk.post("/v5/order/cancel", {}, secret="wrong").headers == {}


def test_rates_tell_orders_not_calls(desk: BybitDesk) -> None:
    desk.cancel_batch(desk.place(count=7))
    [rate] = [rate for rate in desk.simulator.rates() if rate["bucket"] == "bybit/cancel-batch"]
    assert (rate["limit"], rate["window_ms"], rate["worst_admitted"]) == (20, 1_000, 7)
