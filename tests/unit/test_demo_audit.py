"""The demo's audit can fail: it is shown every kind of lie, and has to name each one.

Each test starts from a small day on which everything went well and doctors one thing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from cancelq.contract import Event, Status
from cancelq_worker.demo.audit import LaneReport, Report, audit
from cancelq_worker.demo.latency import percentile
from cancelq_worker.demo.summary import view
from cancelq_worker.demo.tables import Asked, BucketUse, Naming, OrderTruth, Tables, VenueCall

T0_US = 1_795_228_645_000_000
LANE = "bitget:main"


def asked(id_: str, expected: Status = Status.cancelled, *orders: str) -> Asked:
    return Asked(f"kind {id_}", id_, f"{T0_US // 1000}-0", expected, orders)


def told(id_: str, status: Status = Status.cancelled, **fields: object) -> Event:
    """The final event of an intent about one order."""
    return Event.model_validate(
        {
            "entry_id": "1-0",
            "id": id_,
            "status": status,
            "final": True,
            "scope": "order",
            "worker": "w1",
            "evidence": "query",
            **fields,
        }
    )


def used(name: str, taken: int, refused: int = 0, worst: int = 10) -> BucketUse:
    return BucketUse("bitget", name, "2001", 10, 1_000, taken, refused, worst)


def called(endpoint: str, orders: int = 1, *, posts: bool = True, uid: str = "2001", **more: Any) -> VenueCall:
    return VenueCall("bitget", uid, endpoint, posts, orders, **more)


def repeated(id_: str, detail: str = "this id is already queued, with the same content") -> Event:
    return Event(entry_id="1-0", id=id_, status=Status.duplicate, final=False, detail=detail)


def known(order_id: str, state: str = "cancelled", **more: object) -> OrderTruth:
    is_open = state in ("live", "partially_filled")
    closed_by = "call:7" if state == "cancelled" else "" if is_open else "control"
    order = OrderTruth(order_id, state, is_open, closed_by=closed_by, namings=(Naming(T0_US, "accepted"),))
    return replace(order, **more)  # type: ignore[arg-type]


@dataclass
class Day:
    """The tables of the audit; `audit` judges them."""

    asked: list[Asked] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    truth: list[OrderTruth] = field(default_factory=list)
    buckets: list[BucketUse] = field(default_factory=list)
    calls: Sequence[VenueCall] = ()
    inbox_length: int | None = None
    reply_proves: bool = False
    keeps_ids: bool = False

    def audit(self) -> LaneReport:
        length = len(self.asked) if self.inbox_length is None else self.inbox_length
        return audit(
            Tables(
                LANE,
                self.asked,
                self.events,
                self.truth,
                self.buckets,
                self.calls,
                length,
                self.reply_proves,
                self.keeps_ids,
            )
        )

    def entry(self, id_: str, **changes: object) -> None:
        """Doctors what was asked under an id."""
        self.asked = [replace(one, **changes) if one.id == id_ else one for one in self.asked]  # type: ignore[arg-type]

    def event(self, id_: str, **changes: object) -> None:
        """Doctors an outcome."""
        self.events = [one.model_copy(update=changes) if one.id == id_ and one.final else one for one in self.events]

    def order(self, order_id: str, **changes: object) -> None:
        """Doctors the venue's truth about an order."""
        self.truth = [replace(one, **changes) if one.order_id == order_id else one for one in self.truth]  # type: ignore[arg-type]

    def reject_a_good_one(self) -> None:
        """Truthful, and yet not what was to come of it."""
        self.event("cancelled", status=Status.rejected)
        self.order("100", state="live", open=True)


@pytest.fixture
def day() -> Day:
    """One of everything, and all of it true."""
    return Day(
        asked=[
            asked("cancelled", Status.cancelled, "100"),
            asked("partly", Status.cancelled, "101"),
            asked("filled", Status.filled, "102"),
            asked("fired", Status.triggered, "103"),
            asked("failed", Status.closed, "104"),
            asked("unknown", Status.not_found),
            replace(asked("bad", Status.rejected), spared=("105",), says="should be 'BTCUSDT'"),
            replace(asked("late", Status.expired), spared=("106",)),
            replace(asked("target", Status.revoked), spared=("107",)),
            replace(asked("revoke", Status.revoked), target="target"),
            replace(asked("pair", Status.cancelled, "108", "109"), spared=("110",)),
            replace(asked("timed", Status.cancelled, "111"), not_before_us=T0_US),
            asked("first", Status.cancelled, "112"),
            replace(asked("first", Status.duplicate), repeats=True, kind="repeat"),
            asked("mixed", Status.cancelled, "113"),
            replace(
                asked("mixed", Status.duplicate), repeats=True, differs=True, spared=("114",), kind="repeat, other"
            ),
        ],
        events=[
            told("cancelled"),
            told("partly", filled="0.50"),
            told("filled", Status.filled, filled="1"),
            told("fired", Status.triggered, child_order_id="200"),
            told("failed", Status.closed, venue_state="reject"),
            told("unknown", Status.not_found, order_id="999", client_order_id="nobodys"),
            told("bad", Status.rejected, evidence="local", detail="symbol: 'BTC-USDT' should be 'BTCUSDT'"),
            told("late", Status.expired),
            told("target", Status.revoked),
            told("revoke", Status.revoked, scope="revoke"),
            told("pair", scope="symbol", open_orders=0),
            told("timed"),
            told("first"),
            repeated("first"),
            told("mixed"),
            repeated("mixed", "this id is already queued, and the content differs from the first"),
            # What is not final is no outcome.
            Event(entry_id="1-0", id="cancelled", status=Status.accepted, final=False),
        ],
        truth=[
            known("100"),
            known("101", filled="0.5"),
            known("102", "filled", filled="1"),
            known("103", "triggered", child_id="200"),
            known("200", "live"),
            known("104", "failed"),
            *(known(order_id, "live", client_id=f"c{order_id}") for order_id in ("105", "106", "107", "110", "114")),
            *(known(order_id) for order_id in ("108", "111", "112", "113")),
            known("109", "filled", filled="1"),
        ],
        buckets=[used("batch-cancel-order", taken=8)],
    )


def test_a_day_on_which_all_went_well(day: Day) -> None:
    report = day.audit()
    assert not report.findings
    assert Report([report, report]).ok
    assert Report([report, report]).sent == 2 * len(day.asked)
    assert all(row.agree == row.sent and not row.missing and not row.doubled for row in report.rows)


LIES: dict[str, tuple[Callable[[Day], object], str]] = {
    "an outcome is missing": (lambda day: day.events.pop(0), "no final event"),
    "an outcome is doubled": (lambda day: day.events.append(told("cancelled")), "2 final events"),
    "two outcomes contradict": (lambda day: day.events.append(told("late")), "2 final events: expired, cancelled"),
    "cancelled, but it is open": (
        lambda day: day.order("100", state="live", open=True, closed_by=""),
        "cancelled, but the venue says that 100 is live",
    ),
    "cancelled, but it filled": (
        lambda day: day.order("100", state="filled", filled="1", closed_by="race"),
        "cancelled, but the venue says that 100 is filled",
    ),
    "cancelled, but nobody knows it": (lambda day: day.truth.pop(0), "the venue does not know 100"),
    "cancelled, but it had fired": (
        lambda day: day.event("fired", status=Status.cancelled),
        "cancelled, but the venue says that 103 is triggered",
    ),
    "cancelled, but named nothing": (
        lambda day: day.event("unknown", status=Status.cancelled),
        "it names no order the venue has",
    ),
    "filled, but it was cancelled": (
        lambda day: day.order("102", state="cancelled", closed_by="call:9"),
        "filled, but the venue says that 102 is cancelled",
    ),
    "closed, but it was cancelled": (
        lambda day: day.order("104", state="cancelled", closed_by="call:9"),
        "closed, but the venue says that 104 is cancelled",
    ),
    "the wrong filled amount": (lambda day: day.event("partly", filled="0.4"), "filled 0.4, but at the venue 0.5"),
    "a fill kept quiet": (lambda day: day.event("partly", filled=None), "filled 0, but at the venue 0.5"),
    "the wrong child": (lambda day: day.event("fired", child_order_id="201"), "child_order_id 201"),
    "its own id for a child's": (lambda day: day.event("fired", child_order_id="103"), "at the venue it is 200"),
    "an acknowledgement taken for an end": (
        lambda day: day.event("cancelled", evidence="reply"),
        "cancelled rests on reply, which proves no order's end",
    ),
    "an end that rests on nothing": (lambda day: day.event("filled", evidence=None), "filled rests on nothing"),
    "what is wrong is not named": (lambda day: day.event("bad", detail="no"), "does not say \"should be 'BTCUSDT'\""),
    "the child was cancelled": (
        lambda day: day.order("200", state="cancelled", open=False),
        "the order its trigger placed, 200, was touched",
    ),
    "not_found, but it is there by id": (lambda day: day.event("unknown", order_id="105"), "the venue knows 105"),
    "not_found, but it is there by client id": (
        lambda day: day.event("unknown", client_order_id="c106"),
        "the venue knows c106",
    ),
    "rejected, but cancelled all the same": (
        lambda day: day.order("105", state="cancelled", open=False),
        "nothing may happen to order 105",
    ),
    "rejected, although it was good": (
        lambda day: day.reject_a_good_one(),
        "expected cancelled, got rejected",
    ),
    "expired, but cancelled all the same": (
        lambda day: day.order("106", state="cancelled", open=False),
        "nothing may happen to order 106",
    ),
    "revoked, but cancelled all the same": (
        lambda day: day.order("107", state="cancelled", open=False),
        "nothing may happen to order 107",
    ),
    "revoked, but its target went on": (
        lambda day: day.event("target", status=Status.expired),
        "revoked, but its target was not withdrawn",
    ),
    "not revoked, but its target was": (
        lambda day: day.event("revoke", status=Status.rejected),
        "rejected, but its target was withdrawn",
    ),
    "a person must look": (lambda day: day.event("cancelled", status=Status.unresolved), "unresolved"),
    "a final event that is not": (lambda day: day.event("cancelled", status=Status.accepted), "not final"),
    "one of a pair is open": (
        lambda day: day.order("108", state="live", open=True, closed_by=""),
        "cancelled, but the venue says that 108 is live",
    ),
    "a pair with open orders": (lambda day: day.event("pair", open_orders=1), "open_orders is 1"),
    "a pair of which nobody counted": (lambda day: day.event("pair", open_orders=None), "open_orders is None"),
    "another's order of the pair": (
        lambda day: day.order("110", state="cancelled", open=False),
        "nothing may happen to order 110",
    ),
    "sent before its time": (
        lambda day: day.order("111", namings=(Naming(T0_US - 1_500, "accepted"),)),
        "sent 1.5 ms before its time",
    ),
    "a repeat without an answer": (
        lambda day: day.events.remove(repeated("first")),
        "1 repeats of this id, 0 duplicate events",
    ),
    "a repeat answered twice": (
        lambda day: day.events.append(repeated("first")),
        "1 repeats of this id, 2 duplicate events",
    ),
    "a repeat that got an outcome": (lambda day: day.events.append(told("first")), "2 final events"),
    "other content, and nobody says so": (
        lambda day: day.events.__setitem__(15, repeated("mixed")),
        "its content differs from the first, and no event says so",
    ),
    "other content was carried out": (
        lambda day: day.order("114", state="cancelled", open=False),
        "nothing may happen to order 114",
    ),
    "an outcome nobody asked for": (lambda day: day.events.append(told("stray")), "an intent that nobody sent"),
    "a cancel nobody asked for": (lambda day: day.truth.append(known("300")), "nobody asked for it"),
    "a refused call": (
        lambda day: day.buckets.append(used("cancel-order", taken=11, refused=1)),
        "1 calls were refused: over the limit of 10",
    ),
    "over the limit, unnoticed": (
        lambda day: day.buckets.append(used("cancel-order", taken=11, worst=11)),
        "11 calls in one window, the limit is 10",
    ),
    "a call at an endpoint that is locked": (
        lambda day: setattr(day, "calls", [called("query", posts=False, code="100410", refused=True)]),
        "1 calls came to an endpoint that the venue had closed",
    ),
    "cancelled again too soon": (
        lambda day: day.order("100", namings=(Naming(T0_US, "accepted"), Naming(T0_US + 1, "too_soon"))),
        "cancelled again before the venue's gap was over",
    ),
    "an entry too many": (lambda day: setattr(day, "inbox_length", 99), "it holds 99 entries"),
}


@pytest.mark.parametrize("lie", LIES)
def test_it_finds(lie: str, day: Day) -> None:
    doctor, problem = LIES[lie]
    doctor(day)
    report = day.audit()
    assert not Report([report]).ok
    assert {finding.lane for finding in report.findings} == {LANE}
    assert any(problem in finding.problem for finding in report.findings), report.findings


def test_a_finding_stands_in_its_row(day: Day) -> None:
    day.events = [event for event in day.events if event.id not in ("cancelled", "filled")]
    day.events += [told("filled", Status.filled), told("filled", Status.filled)]
    rows = {row.kind: row for row in day.audit().rows}
    assert (rows["kind cancelled"].agree, rows["kind cancelled"].missing, rows["kind cancelled"].doubled) == (0, 1, 0)
    assert (rows["kind filled"].agree, rows["kind filled"].missing, rows["kind filled"].doubled) == (0, 0, 1)
    assert rows["kind partly"].agree == 1


def test_a_finding_of_one_lane_fails_all(day: Day) -> None:
    good = day.audit()
    day.events.pop(0)
    assert not Report([good, day.audit()]).ok
    assert not Report([day.audit(), good]).ok


def test_where_the_answer_is_the_order_a_reply_proves_its_end(day: Day) -> None:
    day.event("cancelled", evidence="reply")
    day.reply_proves = True
    assert not day.audit().findings


def test_where_a_trigger_keeps_its_id_the_child_goes_by_it(day: Day) -> None:
    day.event("fired", child_order_id="103")
    day.keeps_ids = True
    assert not day.audit().findings
    day.event("fired", child_order_id="200")
    assert "at the venue it is 103" in day.audit().findings[0].problem


def test_outcomes_are_counted_with_what_they_rest_on(day: Day) -> None:
    report = day.audit()
    assert (report.outcomes["revoked"], report.outcomes["duplicate"], report.outcomes["filled"]) == (2, 2, 1)
    assert report.evidence == {"query": len(day.asked) - 3, "local": 1}


def test_calls_are_counted_from_the_venues_log(day: Day) -> None:
    day.calls = [
        called("batch-cancel-order", 50),
        called("cancel-batch", 20, fault="execute_and_drop"),
        called("cancelOrders", 5),
        called("cancel-order"),
        called("orderInfo", posts=False),
        called("userDataStream"),
        called("time", posts=False, uid=""),
    ]
    report = day.audit()
    calls = report.calls
    assert (calls.cancels, calls.lookups, calls.per_batch) == (4, 1, 25.0)
    assert report.troubles == Counter(execute_and_drop=1)


def test_equal_errors_are_counted_by_endpoint_and_code(day: Day) -> None:
    day.calls = [
        *[called("cancel", code="100404")] * 3,
        *[called("cancel", code="100400")] * 2,
        *[called("query", code="100404", posts=False)] * 2,
        *[called("cancel", code="0")] * 9,
    ]
    assert day.audit().calls.equal_errors == 3


def test_latency_is_told_by_priority_and_without_timed_ones(day: Day) -> None:
    times = {"queued_us": T0_US, "sent_us": T0_US + 2_000, "settled_us": T0_US + 5_000}
    day.event("cancelled", priority="normal", **times)
    day.event("timed", priority="normal", **{**times, "settled_us": T0_US + 9_000_000})
    day.event("first", priority="urgent", **{**times, "settled_us": T0_US + 4_000})
    urgent, normal = day.audit().latency
    assert (urgent.priority, urgent.count, urgent.settled_p99_ms) == ("urgent", 1, 4.0)
    assert (normal.priority, normal.count, normal.sent_p50_ms, normal.settled_p99_ms) == ("normal", 1, 2.0, 5.0)


def test_a_person_is_shown_up_to_twenty_findings_and_how_many_there_are(day: Day) -> None:
    day.events += [told(f"stray-{n}") for n in range(25)]
    console = Console(width=80, file=StringIO(), record=True)
    console.print(view(Report([day.audit()])))
    shown = console.export_text()
    assert "bitget:main, results, stray-19: a final event of an intent that nobody sent" in shown
    assert "stray-20" not in shown
    assert "… and 5 more" in shown
    assert "FAILED: 25 things" in shown


def shown(report: Report, width: int) -> list[str]:
    console = Console(width=width, file=StringIO(), record=True)
    console.print(view(report))
    return console.export_text().splitlines()


def test_it_fits_eighty_columns_and_uses_more_where_there_are(day: Day) -> None:
    lanes = ("bitget:main", "bybit:main", "bingx:main", "bitget:second")
    report = Report([replace(day.audit(), lane=lane) for lane in lanes])
    narrow, wide = shown(report, 80), shown(report, 160)
    assert max(map(len, narrow)) <= 80 < max(map(len, wide)) <= 160
    assert len(wide) < len(narrow)
    head = next(line for line in wide if line.startswith("kind of cancel"))
    assert "the venues' limits" in head
    assert not any("…" in line for line in (*narrow, *wide))


def test_a_kind_is_counted_by_venue_whatever_the_lane(day: Day) -> None:
    lanes = ("bitget:main", "bybit:main", "bitget:second")
    told = shown(Report([replace(day.audit(), lane=lane) for lane in lanes]), 80)
    (row,) = (line for line in told if line.startswith("kind filled "))
    assert row.split()[2:] == ["filled", "2", "1", "-", "3", "0"]


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_a_percentile_is_one_of_the_numbers(percent: int, value: int) -> None:
    assert percentile(list(range(1, 101)), percent) == value
    assert percentile([7], percent) == 7
