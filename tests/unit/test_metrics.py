"""What a lane counts, for each thing that can come back."""

from __future__ import annotations

import re

import pytest
from pydantic import SecretStr
from redis.exceptions import ResponseError

from cancelq.contract import Lane
from cancelq_worker.metrics import LaneMetrics, Metrics
from cancelq_worker.records import Admitted, End, Move, Settled, Settlement
from cancelq_worker.settings import Account
from cancelq_worker.state import State, Work
from cancelq_worker.venues.port import Reply, Stage, Word
from cancelq_worker.venues.registry import KINDS, open_venue

LANE = Lane("bitget", "main")
VENUE = open_venue(
    "bitget", Account(api_key=SecretStr("k"), api_secret=SecretStr("s"), passphrase=SecretStr("p"), base_url="http://x")
)
BATCH, LOOK = "/batch-cancel", "/order-info"
AT = {"venue": "bitget", "account": "main"}
QUEUED_US = 1_700_000_000_000_000


class Counted:
    """A lane's counters, and what they show."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.lane: LaneMetrics = self.metrics.lane(LANE, VENUE, KINDS["bitget"].codes)

    def of(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def outcomes(self, status: str) -> float | None:
        return self.of("cancelq_outcomes_total", **AT, status=status)

    def calls(self, code: str, endpoint: str = BATCH) -> float | None:
        return self.of("cancelq_venue_calls_total", **AT, endpoint=endpoint, code=code)


@pytest.fixture
def counted() -> Counted:
    return Counted()


def work(**record: str) -> Work:
    return Work("i", {"scope": "order", "queued_us": str(QUEUED_US), **record}, State(), 1)


def end(status: str = "cancelled", final: str = "1", of: Work | None = None, **event: str) -> End:
    told = {"status": status, "final": final, "queued_us": str(QUEUED_US), **event}
    return End(of or work(), told, True, True, ())


def sent(after_ms: int, answered_after_ms: int | None = None, of: Work | None = None, **more: str) -> End:
    times = {"sent_us": str(QUEUED_US + after_ms * 1000), **more}
    if answered_after_ms is not None:
        times["answered_us"] = str(QUEUED_US + answered_after_ms * 1000)
    return end(of=of, **times)


def test_final_events_are_outcomes_and_the_others_are_not(counted: Counted) -> None:
    moved = Move(work(), State(), 0, {"status": "accepted", "final": "0"})
    silent = Move(work(), State(), 0)
    later = end("resolved", "0")
    works: list[End | Move] = [end(), end(), end("filled"), moved, silent, later]
    counted.lane.settled(Settlement(None, works), Settled(len(works), 0), QUEUED_US)
    assert (counted.outcomes("cancelled"), counted.outcomes("filled"), counted.outcomes("resolved")) == (2, 1, None)
    assert counted.of("cancelq_events_total", **AT, status="accepted") == 1
    assert counted.of("cancelq_events_total", **AT, status="resolved") == 1


def test_what_another_worker_has_settled_is_not_counted(counted: Counted) -> None:
    counted.lane.settled(Settlement(None, [end(), end(), end()]), Settled(1, 0, frozenset({0, 2})), QUEUED_US)
    assert counted.outcomes("cancelled") == 1
    mixed: list[End | Move] = [end("filled"), end("unresolved")]
    counted.lane.settled(Settlement(None, mixed), Settled(1, 0, frozenset({0})), QUEUED_US)
    assert (counted.outcomes("unresolved"), counted.outcomes("filled")) == (1, None)
    counted.lane.settled(Settlement(None, [end()]), Settled(0, 0, frozenset({0})), QUEUED_US)
    assert counted.outcomes("cancelled") == 1
    assert counted.of("cancelq_stale_settlements_total", **AT) == 4


def test_an_alert_s_counters_are_there_before_anything_happens(counted: Counted) -> None:
    assert counted.outcomes("unresolved") == 0
    for bucket in VENUE.buckets:
        assert counted.of("cancelq_refusals_total", **AT, bucket=bucket.name) == 0


def test_times_are_those_of_the_last_call_by_priority(counted: Counted) -> None:
    timed = sent(9, of=work(not_before_ms="1"))
    works: list[End | Move] = [sent(20, 120), sent(40, priority="urgent"), end(), timed]
    counted.lane.settled(Settlement(None, works), Settled(len(works), 0), QUEUED_US + 2_000_000)

    def total(name: str, priority: str) -> tuple[float | None, float | None]:
        labels = {"venue": "bitget", "priority": priority}
        return counted.of(f"{name}_count", **labels), counted.of(f"{name}_sum", **labels)

    assert total("cancelq_queued_to_sent_seconds", "normal") == (1, 0.02)
    assert total("cancelq_queued_to_sent_seconds", "urgent") == (1, 0.04)
    assert total("cancelq_sent_to_answered_seconds", "normal") == (1, 0.1)
    assert total("cancelq_sent_to_answered_seconds", "urgent") == (0, 0)
    assert total("cancelq_queued_to_settled_seconds", "normal") == (1, 2)


def test_admission_counts_intents_duplicates_and_what_was_rejected(counted: Counted) -> None:
    for nothing in (None, Admitted(False, "0-0"), ResponseError("OOM")):
        counted.lane.admission(nothing)
    assert counted.of("cancelq_intents_admitted_total", **AT) == 0
    counted.lane.admission(Admitted(True, "4-0", admitted=2, duplicates=1, rejected=1))
    assert counted.of("cancelq_intents_admitted_total", **AT) == 2
    assert counted.of("cancelq_duplicates_total", **AT) == 1
    assert counted.of("cancelq_events_total", **AT, status="duplicate") == 1
    assert counted.outcomes("rejected") == 1


@pytest.mark.parametrize(
    ("replies", "http_status", "code"),
    [
        ([Reply(Word.ACKNOWLEDGED, "00000")] * 3, 200, "00000"),
        ([Reply(Word.GONE, "43001")], 400, "43001"),
        ([Reply(Word.ACKNOWLEDGED, "00000"), Reply(Word.GONE, "43001")], 200, "2xx"),
        ([Reply(Word.ACKNOWLEDGED)] * 2, 200, "2xx"),
        ([Reply(Word.UNCLEAR)], 502, "5xx"),
        ([Reply(Word.UNCLEAR, "987654321")], 200, "other"),
        ([Reply(Word.UNCLEAR, "x"), Reply(Word.REFUSED, "429")], 429, "429"),
        ([], 200, "2xx"),
    ],
)
def test_a_call_counts_under_one_code(counted: Counted, replies: list[Reply], http_status: int, code: str) -> None:
    counted.lane.answered(BATCH, Stage.CANCEL, 3, replies, 30_000, http_status)
    assert counted.calls(code) == 1
    endpoint = {"venue": "bitget", "endpoint": BATCH}
    assert counted.of("cancelq_venue_call_seconds_sum", **endpoint) == 0.03
    assert counted.of("cancelq_batch_orders_sum", **endpoint) == 3
    assert counted.of("cancelq_orders_sent_total", **AT) == 3


def test_whatever_a_venue_says_the_labels_stay_few(counted: Counted) -> None:
    for number in range(500):
        counted.lane.answered(BATCH, Stage.CANCEL, 1, [Reply(Word.UNCLEAR, f"code-{number}")], 1, 200)
    (family,) = [f for f in counted.metrics.registry.collect() if f.name == "cancelq_venue_calls"]
    assert [(sample.labels["code"], sample.value) for sample in family.samples] == [("other", 500)]


def test_calls_without_an_answer_and_calls_that_never_left(counted: Counted) -> None:
    counted.lane.unanswered(BATCH, Stage.CANCEL, 7)
    counted.lane.unanswered(LOOK, Stage.LOOK, 1)
    counted.lane.given_back()
    counted.lane.aside("/time", 0, 0)
    counted.lane.aside("/time", 200, 5_000_000)
    assert (counted.calls("none"), counted.calls("none", LOOK)) == (1, 1)
    assert counted.of("cancelq_orders_sent_total", **AT) == 7
    assert counted.of("cancelq_calls_not_sent_total", **AT) == 1
    assert (counted.calls("none", "/time"), counted.calls("2xx", "/time")) == (1, 1)


def test_refusals_rounds_and_a_redis_that_is_away(counted: Counted) -> None:
    bucket = VENUE.buckets[0].name
    counted.lane.refused(bucket)
    counted.lane.round(3_000_000)
    counted.lane.redis_away()
    assert counted.of("cancelq_refusals_total", **AT, bucket=bucket) == 1
    assert counted.of("cancelq_rounds_total", **AT) == 1
    assert counted.of("cancelq_redis_round_seconds_sum") == 0.003
    assert counted.of("cancelq_redis_errors_total", **AT) == 1


def test_every_venue_names_its_codes() -> None:
    for name, kind in KINDS.items():
        assert len(kind.codes) > 20, name
        assert all(re.fullmatch("-?[0-9]{1,6}", code) for code in kind.codes), name


def test_two_processes_worth_of_counters_live_side_by_side() -> None:
    first, second = Counted(), Counted()
    first.lane.round(1)
    assert second.of("cancelq_rounds_total", **AT) == 0


def test_a_call_without_an_answer_took_no_time(counted: Counted) -> None:
    counted.lane.aside("/time", 0, 9_000_000_000)
    counted.lane.aside("/time", 200, 5_000_000)
    times = {"venue": "bitget", "endpoint": "/time"}
    assert counted.of("cancelq_venue_call_seconds_count", **times) == 1
    assert counted.of("cancelq_venue_call_seconds_sum", **times) == 0.005
