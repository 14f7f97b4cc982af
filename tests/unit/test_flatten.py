"""When the kill switch may not believe its last looks: an order with a trigger may have fired between two of them."""

import pytest

from cancelq.contract import Event, Status
from cancelq_worker.flatten import LATER_US, may_have_fired

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
