"""The truth table as data: what the venue did with an order, times what the worker saw of it, and what must be told.

`docs/TRUTH.md` is written from here (`python -m tests.integration.truth_table > docs/TRUTH.md`), and
`test_truth_table.py` plays every cell at every venue.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cancelq_worker.venues.bitget import codes as bitget
from cancelq_worker.venues.bybit import codes as bybit
from cancelq_worker.venues.port import Word

VENUES: Final = ("bitget", "bybit", "bingx")
NAMES: Final = {"bitget": "Bitget", "bybit": "Bybit", "bingx": "BingX"}


@dataclass(frozen=True, slots=True)
class World:
    """What the venue did with the order. `state`: before the cancel arrives ("": it never existed); `special`: the
    simulator's setting that names the order; `told`: the outcome that is the truth."""

    name: str
    told: str
    state: str = "live"
    special: str = ""


WORLDS: Final = (
    World("cancelled by us", "cancelled"),
    World("cancelled before", "cancelled", "cancelled"),
    World("filled before", "filled", "filled"),
    World("filled in the race", "filled", special="race_fill_ids"),
    World("partly filled, then cancelled by us", "cancelled", "partially_filled"),
    World("never existed", "not_found", ""),
    World("acknowledges every cancel, executes none", "unresolved", special="deaf_ids"),
)


@dataclass(frozen=True, slots=True)
class Sight:
    """What the worker saw. `fault`: what the venue's first answer to a cancel of the order was turned into; `more`:
    the fault's other fields; `by_client_id`: the cancel names the order by a client id, older than the venue searches;
    `venues`: where this can be seen; `unlike`: worlds whose outcome differs here."""

    name: str
    fault: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    by_client_id: bool = False
    venues: tuple[str, ...] = VENUES
    unlike: dict[str, str] = field(default_factory=dict)


#: Seen on a venue that does what it says at once.
SIGHTS: Final = (
    Sight("its plain answer"),
    Sight("a refusal for the rate", "http_429"),
    Sight("no answer in time, executed", "hang", {"execute": True}),
    Sight("no answer in time, not executed", "hang"),
    Sight("a reset, executed", "reset", {"execute": True}),
    Sight("a reset, not executed", "reset"),
    Sight("half a body", "half_body"),
    Sight("HTTP 500, executed", "http_500_executed"),
    Sight("HTTP 500, not executed", "http_500"),
    Sight("HTTP 503, not executed", "http:503"),
    Sight("a page of HTML under 200", "html_200"),
    Sight("an empty body under 200", "empty_200"),
    Sight("an unknown code", "unknown_code"),
    Sight("an answer without the order", "missing_items"),
    Sight("an answer about another order", "wrong_ids"),
    Sight("an answer that says it twice", "repeat_items"),
    Sight("a client id past the two hours", by_client_id=True),
)

#: Seen on a venue that acknowledges now and acts later.
LATE_SIGHTS: Final = (
    Sight("an acknowledgement"),
    Sight("an acknowledgement that was lost", "execute_and_drop"),
    Sight("HTTP 500 after an acknowledgement", "http_500_executed"),
)

#: Seen while lists and look-ups show what was true a while ago.
LAGGING_SIGHTS: Final = (
    Sight("a history that lags and an open list that is stale"),
    Sight("the same, and the answer lost", "execute_and_drop"),
)


#: BingX overloads its codes: the texts decide.
BINGX_GONE: Final = (
    "100404: order not exist",
    "100404:the order you want to cancel is FILLED or CANCELLED already, or is not a valid order id",
    "100404:the order is FILLED or CANCELLED already before",
    "100400:the order you want to cancel is FILLED or CANCELLED already, or is not a valid order id",
    "100421:cancel fail, order not exist",
    "100204:no data",
    "80016:order does not exist",
    "80018:order is already filled",
    "109421:order not exist",
    "109422:order is already filled",
)


#: What says that the order had an end: then absence proves nothing.
ENDED: Final = {
    "bitget": ("43026", "43021", "45031", "45055", "50062", "45134", "40769"),
    "bybit": ("170142", "170139", "170190", "110008", "110010"),
    "bingx": (
        "100404:the order is FILLED or CANCELLED already before",
        "80018:order is already filled",
        "109422:order is already filled",
    ),
}
UNLIKE_ENDED: Final = {"never existed": "unresolved"}


def gone_sights(venue: str) -> Iterator[Sight]:
    """Every code by which the venue says that there is nothing to cancel; none of them was executed."""
    match venue:
        case "bitget":
            codes = [code for code, word in bitget.CODES.items() if word is Word.GONE]
        case "bybit":
            codes = [code for code, word in bybit.CODES.items() if word is Word.GONE]
        case _:
            codes = list(BINGX_GONE)
    for code in codes:
        unlike = UNLIKE_ENDED if code in ENDED[venue] else {}
        yield Sight(f"code {code.replace(':', ' ')}", f"code:{code}", unlike=unlike)


def expected(world: World, sight: Sight, alone: bool = True) -> str:
    """The one outcome that is true. A code for a whole call says nothing of an order in company."""
    return sight.unlike.get(world.name, world.told) if alone else world.told


HEAD: Final = """# The truth table

What the venue did with an order, times what the worker saw of the call that cancels it: the final event is the truth,
or it says that it is not known. Every cell of these tables is played at Bitget, Bybit and BingX, alone in its call and
in company, by `tests/integration/test_truth_table.py`; this page is written from the same data
(`python -m tests.integration.truth_table > docs/TRUTH.md`), and a test holds them together.

How to read it: a column is what the venue did, a row is what the worker saw *first*. What follows is the worker's
doing: it looks the order up wherever the venue could show it, cancels again if it is still open, and ends the intent
when the venue's own word on the order is known. `not_found` means that every place that could hold the order was read,
over the whole look-up budget; `unresolved` that attempts and look-ups are used up and a person must look.
"""

FOOT: Final = """
## Why some cells differ

* Some codes say that the order *had* an end: at Bybit 170142, 170139, 170190, 110008 and 110010; at Bitget 40769,
  43021, 43026, 45031, 45055, 45134 and 50062; at BingX 80018, 109422 and the text "FILLED or CANCELLED already", unless
  it goes on with "or is not a valid order id". Venues forget: Bybit an order that was cancelled without a fill after 24
  hours. If no place shows the order then, absence proves nothing: the outcome is `unresolved`, not `not_found`.
* At BingX, a cancel's own answer carries the order's state. Where that says cancelled, it is the venue's statement and
  the intent ends with it (evidence `reply`); at Bitget and Bybit an answer only ever means "accepted", and the end
  rests on a look-up (`query`) or on the private order stream (`stream`).
"""


def page() -> str:
    """The page, in Markdown."""
    parts = [HEAD]
    parts += ["## On a venue that does at once what it says\n", _table(SIGHTS)]
    parts += ["## On a venue that acknowledges now and acts later\n", _table(LATE_SIGHTS)]
    parts += ["## Where lists and look-ups show what was true a while ago\n", _table(LAGGING_SIGHTS)]
    for venue in VENUES:
        parts += [f"## Every code by which {NAMES[venue]} says that there is nothing to cancel\n"]
        parts += ["None of these calls was executed: the code was all there was.\n", _table(list(gone_sights(venue)))]
    return "\n".join(parts) + FOOT


def _table(sights: Sequence[Sight]) -> str:
    lines = ["| seen | " + " | ".join(world.name for world in WORLDS) + " |", "|---" * (len(WORLDS) + 1) + "|"]
    lines += [f"| {s.name} | " + " | ".join(expected(world, s) for world in WORLDS) + " |" for s in sights]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
