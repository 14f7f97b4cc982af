"""What the demo sends: every kind of cancel the contract knows, at every venue that offers it, in shares as on a busy
day, and sized to what each venue can cancel in the same time.

Pure: a script is drawn from a size and a seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from cancelq.contract import Status
from cancelq_worker.demo import scenes
from cancelq_worker.demo.markets import BINGX, BITGET, BYBIT, SECOND, Market
from cancelq_worker.demo.scenes import Scene
from cancelq_worker.demo.script import Part, Script, Trouble, Writer
from cancelq_worker.exits import CommandFailed, Exit

LEAST = 150
MOST = 100_000

# Of a thousand entries. Bitget cancels 500 orders a second and more, Bybit 40, BingX 25; Bitget's main account has
# what is left.
SHARES = {BYBIT: 70, BINGX: 40}


def write_script(entries: int, seed: int = 1) -> Script:
    """A script of exactly so many entries. Raises `CommandFailed` for a number it cannot do."""
    if not LEAST <= entries <= MOST:
        raise CommandFailed(
            f"the demo sends {LEAST} to {MOST:,} cancels, not {entries:,}: it wants some of every kind",
            f"cancelq demo --orders {min(max(entries, LEAST), MOST)}",
            Exit.USAGE,
        )
    second = _written(SECOND, _ALONE, entries // 50, seed)
    bybit, bingx = (_written(market, _AT[market], share * entries // 1000, seed) for market, share in SHARES.items())
    left = entries - second.size - bybit.size - bingx.size
    return Script((_written(BITGET, _AT[BITGET], left, seed), bybit, bingx, second), TROUBLES)


@dataclass(frozen=True, slots=True)
class _Times:
    """How often a scene is played: so many times of a thousand entries, at least once and at most `most` times."""

    scene: Scene
    per_thousand: int = 0
    most: int = MOST


def _written(market: Market, plan: Sequence[_Times], entries: int, seed: int) -> Part:
    """A lane's part: its scenes, and plain live orders up to so many entries. It has more if the scenes have."""
    writer = Writer(market, random.Random(f"{seed} {market.lane}"), entries)
    for times in plan:
        for _ in range(min(times.most, max(1, times.per_thousand * entries // 1000))):
            times.scene(writer)
    while plan is not _ALONE and writer.written < entries:
        scenes.live(writer)
    return writer.part()


# What every venue offers.
_EVERYWHERE = (
    _Times(scenes.live_by_client_id, 150),
    _Times(scenes.urgent, 12),
    _Times(scenes.asked_twice, 4),
    _Times(scenes.normal("partly filled", Status.cancelled, "partially_filled"), 60),
    _Times(scenes.trigger("TP/SL, live", Status.cancelled, "tpsl"), 8),
    _Times(scenes.trigger("plan order, live", Status.cancelled, "plan"), 12),
    _Times(scenes.whole_pair),
    _Times(scenes.own_orders_of_a_pair),
    _Times(scenes.all_kinds_of_a_pair),
    _Times(scenes.timed, 10),
    _Times(scenes.expired, 6),
    _Times(scenes.revoked, 6),
    _Times(scenes.revoked_too_late, 1),
    _Times(scenes.revoked_nothing, 1),
    _Times(scenes.repeated, 6),
    _Times(scenes.repeated_later, 1),
    _Times(scenes.id_used_for_another, 2),
    _Times(scenes.misspelled_pair, 2),
)

# Cancels that come too late, or name what is not there.
_IN_VAIN = (
    _Times(scenes.normal("fills just before its cancel", Status.filled, fills_first=True), 10),
    _Times(scenes.normal("already cancelled", Status.cancelled, "cancelled"), 40),
    _Times(scenes.normal("already filled", Status.filled, "filled"), 40),
    _Times(scenes.normal("turned down by the venue", Status.closed, "failed"), 4),
    _Times(scenes.trigger("TP/SL, triggered", Status.triggered, "tpsl", "triggered"), 2),
    _Times(scenes.trigger("TP/SL, already cancelled", Status.cancelled, "tpsl", "cancelled"), 2),
    _Times(scenes.trigger("plan order, executed", Status.triggered, "plan", "triggered"), 3),
    _Times(scenes.trigger("plan order, already cancelled", Status.cancelled, "plan", "cancelled"), 3),
    _Times(scenes.trigger("plan order, failed", Status.closed, "plan", "failed"), 1),
    _Times(scenes.unknown_order, 5),
    _Times(scenes.unknown_client_id, 1),
    _Times(scenes.unknown_pair, 1),
)

# BingX locks an endpoint after twenty equal errors in eight minutes. The worker does not let it come to that: it looks
# first, once it has heard eight. A desk that sends little else than dead orders would only see it look.
_SELDOM_IN_VAIN = (
    _Times(scenes.normal("fills just before its cancel", Status.filled, fills_first=True), 10, most=4),
    _Times(scenes.normal("already cancelled", Status.cancelled, "cancelled"), 30, most=12),
    _Times(scenes.normal("already filled", Status.filled, "filled"), 30, most=12),
    _Times(scenes.normal("turned down by the venue", Status.closed, "failed"), most=1),
    _Times(scenes.trigger("TP/SL, triggered", Status.triggered, "tpsl", "triggered"), most=1),
    _Times(scenes.trigger("plan order, executed", Status.triggered, "plan", "triggered"), most=1),
    _Times(scenes.unknown_order, most=1),
    _Times(scenes.unknown_pair, most=1),
    _Times(scenes.wrong_pair, most=1),
    _Times(scenes.only_if("if partly filled, and it is", Status.cancelled, "partially_filled", "PARTIALLY_FILLED"), 20),
    _Times(
        scenes.only_if("if partly filled, and it is not", Status.rejected, "live", "PARTIALLY_FILLED", "stays open"),
        most=1,
    ),
)

# Entries that can never work, all from whoever does without the client package.
_MALFORMED = (
    _Times(scenes.malformed({"symbol": ""}), 1),
    _Times(scenes.malformed({}, names_order=False), 1),
    _Times(scenes.malformed({"priority": "asap"}), 1),
    _Times(scenes.malformed({"oder_id": "121211212122"}), 1),
    _Times(scenes.malformed({"id": "1795228645342-12"}), 1),
    _Times(scenes.malformed({f"x_note_{n}": "far too long " * 50 for n in range(8)}), 1),
)
_ONE_MALFORMED = (_Times(scenes.malformed({"oder_id": "121211212122"}), 1),)

_AT: dict[Market, Sequence[_Times]] = {
    BITGET: (*_EVERYWHERE, *_IN_VAIN, _Times(scenes.wrong_scope, 1), *_MALFORMED),
    BYBIT: (*_EVERYWHERE, *_IN_VAIN, _Times(scenes.wrong_scope, 1), _Times(scenes.wrong_pair, 1), *_ONE_MALFORMED),
    BINGX: (*_EVERYWHERE, *_SELDOM_IN_VAIN, *_ONE_MALFORMED),
}
_ALONE = (_Times(scenes.whole_account),)

# Executed and not told, told and not executed, told wrongly: whatever a call comes to, only the order itself counts.
TROUBLES = (
    Trouble("execute_and_drop", "bitget/batch-cancel-order", 3),
    Trouble("http_500_executed", "bitget/batch-cancel-order", 2),
    Trouble("missing_items", "bitget/batch-cancel-order", 2),
    Trouble("http_500", "bitget/cancel-order", 2),
    Trouble("half_body", "bitget/cancel-order", 2),
    Trouble("html_502", "bitget/history-orders", 2),
    Trouble("execute_and_drop", "bybit/cancel-batch", 1),
    Trouble("http_500_executed", "bybit/cancel-batch", 1),
    Trouble("missing_items", "bybit/cancel-batch", 1),
    Trouble("reset", "bybit/cancel", 1),
    Trouble("half_body", "bybit/cancel", 1),
    Trouble("html_502", "bybit/realtime", 2),
    Trouble("execute_and_drop", "bingx/cancelOrders", 1),
    Trouble("missing_items", "bingx/cancelOrders", 1),
    Trouble("http_500_executed", "bingx/cancel", 1),
    Trouble("half_body", "bingx/cancel", 1),
    Trouble("html_502", "bingx/openOrders", 1),
)

# The rows of the audit, in their order.
KINDS = (
    *(scenes.LIVE, "live, by client id", scenes.URGENT, "live, asked for by two", "partly filled", "timed"),
    *("fills just before its cancel", "already cancelled", "already filled", "turned down by the venue"),
    *("TP/SL, live", "TP/SL, triggered", "TP/SL, already cancelled"),
    *("plan order, live", "plan order, executed", "plan order, already cancelled", "plan order, failed"),
    *("if partly filled, and it is", "if partly filled, and it is not"),
    *("a whole pair", "a pair, one desk's old orders", "a pair, all kinds of order", "a whole account, all kinds"),
    *("expired before it was queued", "timed, then revoked", "revoke, in time", scenes.TOO_LATE),
    *("unknown order id", "unknown client id", scenes.WRONG_SCOPE, "good id, another pair"),
    *("pair the venue does not have", scenes.MISSPELT),
    *(scenes.MALFORMED, "repeated id", "repeated id, another order"),
)
