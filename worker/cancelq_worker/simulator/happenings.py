"""What the core tells its observers: that something befell an order."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from cancelq_worker.simulator.orders import Book, Order, State, Trade


class What(StrEnum):
    """`cancel_too_late`: a cancel that had been acknowledged found the order filled, and changed nothing."""

    entered = "entered"
    partially_filled = "partially_filled"
    filled = "filled"
    cancelled = "cancelled"
    triggered = "triggered"
    failed = "failed"
    cancel_too_late = "cancel_too_late"


# The state an order is in after a change, to the change that led there.
WHAT_OF_STATE = {
    State.live: What.entered,
    State.partially_filled: What.partially_filled,
    State.filled: What.filled,
    State.cancelled: What.cancelled,
    State.triggered: What.triggered,
    State.failed: What.failed,
}


class Happening(NamedTuple):
    """One change of one order, told the moment the core makes it.

    `at_us` is the steady time it is dated to, which may be earlier than the tick that did it. `trade` is the fill
    behind it, if there was one. The order goes on living: whoever keeps a happening keeps what the order becomes.
    """

    what: What
    book: Book
    order: Order
    at_us: int
    trade: Trade | None = None


Observer = Callable[[Happening], None]
