"""What a client reads, and what that settles, without a server: a list of events plays the results stream."""

from collections.abc import Callable

import pytest

from cancelq.contract import Event, Lane
from cancelq.errors import EventError
from cancelq.link import Command
from cancelq.watch import PAGE, SLOTS_LIMIT, Entry, Reads, Slot, Watch, entries

LANE = Lane("bitget", "main")


class Results:
    """A results stream: answers the reads of a watch and counts them."""

    def __init__(self) -> None:
        self.events: list[tuple[tuple[int, int], list[bytes]]] = []
        self.reads: list[str] = []

    def add(self, ms: int, id: str, status: str = "cancelled", final: str = "1", **more: str) -> None:
        seq = sum(1 for at, _ in self.events if at[0] == ms)
        fields = {"id": id, "status": status, "final": final, **more}
        flat = [word.encode() for pair in fields.items() for word in pair]
        self.events.append(((ms, seq), flat))

    def carry_out(self, reads: Reads, between: Callable[[], object] = lambda: None) -> int:
        try:
            command = next(reads)
            while True:
                page = self.answer(command)
                between()
                command = reads.send(page)
        except StopIteration as done:
            count: int = done.value
            return count

    def answer(self, command: Command) -> list[Entry]:
        name, *arguments = command
        self.reads.append(name)
        if name == "XREAD":
            after = entry(arguments[-1])
            found = [event for event in self.events if event[0] > after]
        elif name == "XRANGE":
            start, end = arguments[1], entry(arguments[2], 2**64)
            low = entry(start.removeprefix("("))
            found = [e for e in self.events if low <= e[0] <= end and not (start[0] == "(" and e[0] == low)]
        else:
            high = entry(arguments[1].removeprefix("("))
            found = [event for event in reversed(self.events) if event[0] < high]
        return [(f"{ms}-{seq}", flat) for (ms, seq), flat in found[:PAGE]]


def entry(text: str, seq: int = 0) -> tuple[int, int]:
    ms, _, own_seq = text.partition("-")
    return int(ms), int(own_seq) if own_seq else seq


@pytest.fixture
def results() -> Results:
    return Results()


@pytest.fixture
def watch() -> Watch:
    return Watch(LANE)


def outcome_of(slot: Slot) -> Event:
    assert isinstance(slot.outcome, Event)
    return slot.outcome


def test_one_read_settles_all_that_wait(watch: Watch, results: Results) -> None:
    slots = [watch.slot(f"k{at}") for at in range(50)]
    for at in range(50):
        results.add(1000 + at, "somebody else's")
        results.add(1000 + at, f"k{at}")
    assert not watch.aim(999)
    assert results.carry_out(watch.read_on(0)) == 100
    assert [outcome_of(slot).id for slot in slots] == [f"k{at}" for at in range(50)]
    assert results.reads == ["XREAD"]


def test_what_is_not_final_settles_nothing(watch: Watch, results: Results) -> None:
    slot = watch.slot("k")
    watch.aim(1000)
    results.add(1000, "k", "accepted", "0")
    results.carry_out(watch.read_on(0))
    assert slot.outcome is None
    results.add(1001, "k", "filled")
    results.carry_out(watch.read_on(0))
    assert outcome_of(slot).status == "filled"


def test_tickets_of_one_id_share_their_outcome(watch: Watch, results: Results) -> None:
    assert watch.slot("k") is watch.slot("k")
    first, again = watch.slot("k"), watch.slot("k")
    watch.aim(1000)
    results.add(1001, "k")
    results.carry_out(watch.read_on(0))
    assert outcome_of(first) is outcome_of(again)


def test_an_outcome_met_while_reading_for_another_is_not_lost(watch: Watch, results: Results) -> None:
    later, earlier = watch.slot("later"), watch.slot("earlier")
    results.add(1001, "earlier")
    results.add(1002, "later")
    watch.aim(1000)
    results.carry_out(watch.read_on(0))
    outcome_of(later)
    outcome_of(earlier)


def test_a_ticket_older_than_what_was_read_has_the_gap_closed(watch: Watch, results: Results) -> None:
    for at in range(2 * PAGE):
        results.add(1000 + at, f"other{at}")
    results.add(1500, "old")
    results.events.sort(key=lambda event: event[0])
    watch.aim(9000)
    watch.waiting = 1
    results.carry_out(watch.read_on(0))
    old = watch.slot("old")
    assert watch.aim(1400)
    results.carry_out(watch.catch_up())
    assert outcome_of(old).entry_id == "1500-1"
    assert not watch.aim(1400)
    assert results.reads == ["XREAD", "XRANGE", "XRANGE"]


def test_a_younger_ticket_leaves_the_gap_of_an_older_one_open(watch: Watch, results: Results) -> None:
    results.add(150, "older")
    results.add(250, "younger")
    older, younger = watch.slot("older"), watch.slot("younger")
    watch.aim(300)
    watch.waiting = 1
    results.carry_out(watch.read_on(0))
    assert watch.aim(100)
    assert watch.aim(200)
    results.carry_out(watch.catch_up())
    assert (outcome_of(older).id, outcome_of(younger).id) == ("older", "younger")


def test_a_gap_left_open_by_a_failure_is_closed_with_the_next_read(watch: Watch, results: Results) -> None:
    results.add(1500, "old")
    watch.aim(9000)
    watch.waiting = 1
    assert watch.aim(1400)
    watch.catch_up().close()
    old = watch.slot("old")
    results.carry_out(watch.read_on(0))
    assert outcome_of(old).id == "old"


def test_while_nobody_waits_a_new_ticket_skips_what_nobody_asked_for(watch: Watch, results: Results) -> None:
    watch.aim(1000)
    results.add(1001, "k1")
    results.carry_out(watch.read_on(0))
    for at in range(5 * PAGE):
        results.add(2000 + at, "other")
    results.add(9000, "k2")
    slot = watch.slot("k2")
    assert not watch.aim(8000)
    results.carry_out(watch.read_on(0))
    assert outcome_of(slot).id == "k2"
    assert results.reads == ["XREAD", "XREAD"]


def test_while_somebody_waits_nothing_is_skipped(watch: Watch, results: Results) -> None:
    first, second = watch.slot("k1"), watch.slot("k2")
    watch.aim(1000)
    watch.waiting = 1
    watch.aim(8000)
    results.add(1001, "k1")
    results.add(8001, "k2")
    results.carry_out(watch.read_on(0))
    outcome_of(first)
    outcome_of(second)


def test_an_aim_further_back_during_a_read_is_not_overrun(watch: Watch, results: Results) -> None:
    slot = watch.slot("old")
    results.add(1500, "old")
    results.add(9001, "new")
    watch.aim(9000)
    watch.waiting = 1
    results.carry_out(watch.read_on(0), between=lambda: watch.aim(1400))
    results.carry_out(watch.read_on(0))
    assert outcome_of(slot).id == "old"


def test_the_outcome_of_a_duplicate_is_looked_for_further_back(watch: Watch, results: Results) -> None:
    results.add(1000, "k", "cancelled")
    for at in range(3 * PAGE):
        results.add(2000 + at, "other")
    results.add(9000, "k", "duplicate", "0")
    slot = watch.slot("k")
    watch.aim(9000 - 1)
    results.carry_out(watch.read_on(0))
    assert outcome_of(slot).entry_id == "1000-0"
    assert results.reads == ["XREAD", *["XREVRANGE"] * 4]


def test_a_duplicate_of_what_is_still_under_way_is_looked_for_once(watch: Watch, results: Results) -> None:
    slot = watch.slot("k")
    watch.aim(1000)
    results.add(1001, "k", "duplicate", "0")
    results.add(1002, "k", "duplicate", "0")
    results.carry_out(watch.read_on(0))
    assert slot.outcome is None
    results.add(1003, "k", "rejected")
    results.carry_out(watch.read_on(0))
    assert outcome_of(slot).status == "rejected"
    assert results.reads == ["XREAD", "XREVRANGE", "XREAD"]


def test_whose_outcome_it_is_is_told_by_when_it_was_queued(watch: Watch, results: Results) -> None:
    slot = watch.slot("k")
    watch.aim(1000)
    results.add(1002, "k", queued_us="1001000")
    results.carry_out(watch.read_on(0))
    assert slot.settles("1001-0")
    assert not slot.settles("1002-0"), "whether it was a repeat, and of the same content, is not told yet"
    results.add(1003, "k", "duplicate", "0", queued_us="1002000", entry="1002-0")
    results.add(1004, "k", "duplicate", "0", queued_us="1002000", entry="1002-1", differs="1")
    results.carry_out(watch.read_on(0))
    assert slot.settles("1002-0")
    assert slot.event_of("1002-0") == slot.event_of("1001-0") == slot.outcome
    assert slot.settles("1002-1")
    assert slot.event_of("1002-1") is None, "of it nothing was done"


def test_a_repeat_is_known_by_its_time_where_older_workers_told_of_it(watch: Watch, results: Results) -> None:
    slot = watch.slot("k")
    watch.aim(1000)
    results.add(1001, "k", queued_us="1000000")
    results.add(1003, "k", "duplicate", "0", queued_us="1002000")
    results.carry_out(watch.read_on(0))
    assert slot.event_of("1002-0") == slot.outcome


def test_an_id_that_was_forgotten_has_an_outcome_of_its_own(watch: Watch, results: Results) -> None:
    slot = watch.slot("k")
    watch.aim(1000)
    results.add(1001, "k", queued_us="1000000")
    results.add(9002, "k", "rejected", queued_us="9001000")
    results.carry_out(watch.read_on(0))
    first, again = slot.event_of("1000-0"), slot.event_of("9001-0")
    assert first
    assert again
    assert (first.status, again.status) == ("cancelled", "rejected")


def test_looking_back_has_an_end(results: Results) -> None:
    watch = Watch(LANE, look_back_pages=2)
    for at in range(5 * PAGE):
        results.add(1000 + at, "other")
    results.add(9000, "k", "duplicate", "0")
    slot = watch.slot("k")
    watch.aim(8999)
    results.carry_out(watch.read_on(0))
    assert slot.outcome is None
    assert results.reads == ["XREAD", "XREVRANGE", "XREVRANGE"]


def test_an_outcome_that_cannot_be_read_is_told_not_skipped(watch: Watch, results: Results) -> None:
    slot = watch.slot("k")
    watch.aim(1000)
    results.add(1001, "k", "vanished")
    results.carry_out(watch.read_on(0))
    assert isinstance(slot.outcome, EventError)


def test_slots_go_with_their_tickets(watch: Watch) -> None:
    kept = [watch.slot(f"kept{at}") for at in range(10)]
    for at in range(20 * SLOTS_LIMIT):
        watch.slot(f"k{at}")
    assert len(watch._slots) <= 2 * SLOTS_LIMIT
    assert [watch.slot(f"kept{at}") for at in range(10)] == kept


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (None, []),
        ([], []),
        ({}, []),
        ([[b"stream", [[b"1-0", [b"a", b"b"]]]]], [("1-0", [b"a", b"b"])]),
        ({b"stream": [[b"1-0", [b"a", b"b"]]]}, [("1-0", [b"a", b"b"])]),
        ([[b"1-0", [b"a", b"b"]]], [("1-0", [b"a", b"b"])]),
        ([[b"1-0", [b"a", b"b"]], [b"2-0", [b"c", b"d"]]], [("1-0", [b"a", b"b"]), ("2-0", [b"c", b"d"])]),
    ],
)
def test_entries_are_found_in_every_shape_of_reply(reply: object, expected: list[Entry]) -> None:
    assert entries(reply) == expected
