"""What the kill switch may not ask for; and when it may not believe its last looks, as an order with a trigger may have
fired between two of them."""

import pytest

from cancelq.contract import Event, Lane, Status
from cancelq_worker.flatten import LATER_US, Wish, may_have_fired
from cancelq_worker.venues.registry import KINDS

READ_US = 1_763_690_000_000_000


def ended(id: str, at_us: int, **more: object) -> Event:
    return Event.model_validate(
        {"entry_id": "1-0", "id": id, "status": Status.cancelled, "final": True, "settled_us": at_us, **more}
    )


def fired(*, normal_us: int, triggers_us: int, **more: object) -> bool:
    """Of a round that found nothing: normal orders read last at one moment, those with a trigger at another."""
    asked = {"a": "order", "b": "tpsl,stop"}
    return may_have_fired(asked, {"a": ended("a", normal_us), "b": ended("b", triggers_us, **more)})


@pytest.mark.parametrize("later_us", [-5_000_000, 0, 200_000, LATER_US])
def test_what_was_read_before_the_normal_orders_or_with_them_cannot_have_fired_unseen(later_us: int) -> None:
    assert not fired(normal_us=READ_US, triggers_us=READ_US + later_us)


@pytest.mark.parametrize("later_us", [300_000, 1_000_000, 1_200_000, 5_000_000])
def test_what_was_read_after_the_normal_orders_may_have_fired_in_between(later_us: int) -> None:
    assert fired(normal_us=READ_US, triggers_us=READ_US + later_us)


@pytest.mark.parametrize("more", [{"attempt": 1}, {"extras": {"pairs": "BTCUSDT=1/0"}}])
def test_where_there_were_orders_with_a_trigger_one_may_have_fired(more: dict[str, object]) -> None:
    assert fired(normal_us=READ_US, triggers_us=READ_US - 1, **more)


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        (Wish(Lane("bitget", "main"), symbol="NOPE-X"), "symbol: Bitget spells pairs without a separator"),
        (Wish(Lane("bybit", "main"), symbol="btcusdt"), "symbol: Bybit spells pairs in capitals"),
        (Wish(Lane("bingx", "main"), symbol="BTCUSDT"), "symbol: BingX spells pairs in capitals with a hyphen"),
        (Wish(Lane("bingx", "main"), symbol="a b"), "symbol: "),
        (Wish(Lane("bitget", "main"), client_prefix="a b"), "client_prefix: "),
        (Wish(Lane("bitget", "main"), symbol=""), "symbol: "),
        (Wish(Lane("bybit", "main"), client_prefix=""), "client_prefix: "),
    ],
)
def test_what_could_only_be_rejected_is_known_beforehand(wish: Wish, field: str) -> None:
    fault = wish.fault()
    assert fault is not None
    assert fault.startswith(field)


@pytest.mark.parametrize("venue", KINDS)
@pytest.mark.parametrize("orders_only", [False, True])
def test_nothing_is_said_against_a_kill_that_can_work(venue: str, orders_only: bool) -> None:
    symbol = "BTC-USDT" if venue == "bingx" else "BTCUSDT"
    for pair, prefix in ((None, None), (symbol, None), (None, "mm-1_")):
        assert Wish(Lane(venue, "main"), pair, prefix, orders_only).fault() is None
