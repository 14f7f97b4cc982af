"""Judging replies: what may end an intent, what only moves it, and that everything has a bound."""

import random
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq.contract import FINAL, Status
from cancelq_worker.rulings import Finish, Go, Moment, Silence
from cancelq_worker.state import LOOKS_BACK, State
from cancelq_worker.venues.port import ENDED, Reply, Route, Stage, Target, Venue, Word
from tests.unit.bitget_account import BITGET, ORDER_ID, OTHER_ID, answer, decode, target
from tests.unit.bybit_account import BYBIT
from tests.unit.journey import POLICY, RETURNED, Journey, Say, by_words, place_of

INTENTS = {
    "by order id": target(ORDER_ID),
    "by client id": target(client_order_id="mine-1"),
    "tpsl": target(ORDER_ID, scope="tpsl"),
    "stop": target(ORDER_ID, scope="stop"),
    "stop by client id": target(client_order_id="mine-1", scope="stop"),
}
BULK = {"symbol": target(scope="symbol"), "account": target(scope="account", symbol=None)}
DEFINITE = FINAL - {Status.unresolved}

#: What a venue's adapter may say about a cancel of an order, and about a look for it.
CANCEL_WORDS = (
    Word.ACKNOWLEDGED, Word.GONE, Word.FAILED, Word.AGAIN, Word.DOUBTED, Word.LATER, Word.UNCLEAR, Word.SPLIT,
)  # fmt: skip
LOOK_WORDS = (
    Word.OPEN, Word.CANCELLED, Word.FILLED, Word.TRIGGERED, Word.CLOSED, Word.ABSENT, Word.UNCLEAR, Word.LATER,
)  # fmt: skip
ENDS = {
    Word.CANCELLED: Status.cancelled,
    Word.FILLED: Status.filled,
    Word.TRIGGERED: Status.triggered,
    Word.CLOSED: Status.closed,
}
# Far above every bound of the policy: an intent that has not ended by then never does.
FOR_EVER = 2_000


def silence(why: Silence) -> Say:
    return lambda route, one: why


# -- what comes back as it was -------------------------------------------------------------------------------


@pytest.mark.parametrize("intent", [*INTENTS.values(), *BULK.values()], ids=[*INTENTS, *BULK])
@pytest.mark.parametrize("word", [Word.REFUSED, Word.ACCOUNT, Word.CLOCK])
def test_a_refused_call_costs_nothing(intent: Target, word: Word) -> None:
    for journey in journeys_under_way(intent):
        before = journey.state
        verdict = journey.step(lambda route, one: Reply(word, "429", "not now", 429, retry_us=5))
        if before.cancel_class == "symbol" and before.stage is Stage.CANCEL:
            continue  # a bulk call: see below
        told = Status.retrying if before.stage is Stage.CANCEL else None
        check_returned(before, verdict, told)


@pytest.mark.parametrize("word", [Word.REFUSED, Word.ACCOUNT, Word.CLOCK])
def test_a_refused_bulk_call_costs_nothing_and_is_not_made_again(word: Word) -> None:
    """By then it could hit newer orders: the lists and cancels by id serve instead."""
    journey = Journey(BULK["symbol"])
    before = journey.state
    verdict = journey.step(lambda route, one: Reply(word, "429", "not now", 429, retry_us=5))
    assert isinstance(verdict, Go)
    assert (verdict.delay_us, verdict.tell) == (None, Status.retrying)
    assert (verdict.state.attempts, verdict.state.place) == (before.attempts, before.place)
    end = journey.run(by_words(Word.UNCLEAR, Word.UNCLEAR), most=FOR_EVER)
    assert end.status is Status.unresolved
    assert [call.route.name for call in journey.cancels()] == []


@pytest.mark.parametrize("intent", [*INTENTS.values(), *BULK.values()], ids=[*INTENTS, *BULK])
def test_a_call_that_never_left_costs_nothing(intent: Target) -> None:
    for journey in journeys_under_way(intent):
        before = journey.state
        check_returned(before, journey.step(silence(Silence.NOT_SENT)))


def journeys_under_way(intent: Target) -> list[Journey]:
    """The intent fresh, after a cancel, after looks, and before a second cancel."""
    stops = (0, 1, 3, 6)
    out = []
    for stop in stops:
        journey = Journey(intent)
        while len(journey.calls) < stop and journey.end is None:
            journey.step(by_words(Word.UNCLEAR, Word.OPEN))
        if journey.end is None:
            out.append(journey)
    return out


def check_returned(before: State, verdict: Finish | Go, told: Status | None = None) -> None:
    assert isinstance(verdict, Go)
    assert verdict.delay_us is None, "it keeps its old place in the queue"
    assert verdict.tell is told, "a refused cancel is told, a refused look is not"
    assert verdict.state == before.at_rest(before.fence + 1)
    assert verdict.state.pack().split(" ")[1:] == before.pack().split(" ")[1:]


def test_a_batch_that_is_refused_as_a_whole_is_halved_and_costs_no_attempt() -> None:
    journey = Journey(INTENTS["by order id"])
    sizes = []
    while journey.end is None:
        journey.size = min(50, journey.state.cap or 50)
        sizes.append(journey.size)
        before = journey.state
        verdict = journey.step(lambda route, one: Reply(Word.SPLIT, "40912", "too many", 400))
        if isinstance(verdict, Go):
            assert verdict.delay_us is None
            assert (verdict.state.attempts, verdict.state.notes) == (before.attempts, before.notes)
    assert sizes == [50, 25, 12, 6, 3, 1]
    assert journey.end.status is Status.rejected


@pytest.mark.parametrize("code", ["40808", "40034", "43011", "45056"])
def test_an_order_is_not_rejected_for_another_ones_parameter(code: str) -> None:
    """A whole batch was refused, perhaps for one entry in it: nobody ends as rejected before it travelled alone,
    however often the batch is refused."""
    journey = Journey(INTENTS["by order id"])
    for _ in range(POLICY.max_attempts + 2):
        journey.size = min(2, journey.state.cap or 2)
        if journey.size == 1 or journey.state.stage is not Stage.CANCEL:
            return
        verdict = journey.step(
            lambda route, one: decode("batch-cancel-order", answer(code=code, status=400), one, target(OTHER_ID))[0]
        )
        assert isinstance(verdict, Go), verdict


# -- what ends an intent -------------------------------------------------------------------------------------


@pytest.mark.parametrize("intent", INTENTS.values(), ids=INTENTS)
@pytest.mark.parametrize("word", ENDS)
@pytest.mark.parametrize("cancel", [Word.ACKNOWLEDGED, Word.GONE, Word.UNCLEAR])
def test_the_venues_word_on_the_order_ends_it(intent: Target, word: Word, cancel: Word) -> None:
    journey = Journey(intent)
    end = journey.run(by_words(cancel, word), most=2)
    assert (end.status, end.evidence, end.known) == (ENDS[word], "query", True)
    assert len(journey.cancels()) == len(journey.looks()) == 1


def test_a_request_that_can_never_work_is_rejected_with_the_venues_reason() -> None:
    journey = Journey(INTENTS["by order id"])
    said = Reply(Word.FAILED, "43011", "symbol: refused by the venue: bad symbol", 400)
    end = journey.run(lambda route, one: said, most=1)
    assert (end.status, end.evidence, end.known) == (Status.rejected, "reply", False)
    assert end.reply.code == "43011"
    assert "symbol" in end.detail


def test_an_acknowledgement_is_told_and_then_confirmed() -> None:
    journey = Journey(INTENTS["by order id"])
    verdict = journey.step(by_words(Word.ACKNOWLEDGED, Word.OPEN))
    assert isinstance(verdict, Go)
    assert (verdict.tell, verdict.state.stage) == (Status.accepted, Stage.LOOK)
    assert verdict.delay_us == BITGET.timing.look_after_us


def test_gone_is_not_yet_an_outcome() -> None:
    journey = Journey(INTENTS["by order id"])
    verdict = journey.step(by_words(Word.GONE, Word.OPEN))
    assert isinstance(verdict, Go)
    assert verdict.state.stage is Stage.LOOK


@pytest.mark.parametrize("intent", INTENTS.values(), ids=INTENTS)
@pytest.mark.parametrize("cancel", [Word.GONE, Word.UNCLEAR])
def test_nowhere_to_be_found_is_not_found_only_after_the_budget(intent: Target, cancel: Word) -> None:
    journey = Journey(intent)
    end = journey.run(absent_from_read_places(cancel), most=POLICY.max_walk_lookups)
    assert (end.status, end.evidence, end.known) == (Status.not_found, "query", False)
    first_back = journey.calls[0].back_us
    assert journey.now_us - first_back >= POLICY.lookup_budget_us
    assert len(journey.cancels()) == 1


@pytest.mark.parametrize("intent", INTENTS.values(), ids=INTENTS)
def test_an_acknowledged_order_that_is_nowhere_is_unresolved(intent: Target) -> None:
    """The venue took a cancel of it, so it knew it: it is not unknown, and nobody said that it is cancelled."""
    end = Journey(intent).run(absent_from_read_places(Word.ACKNOWLEDGED), most=POLICY.max_walk_lookups)
    assert end.status is Status.unresolved


@pytest.mark.parametrize("first", [Word.ACKNOWLEDGED, Word.UNCLEAR, Word.GONE])
@pytest.mark.parametrize("then", [Word.GONE, Word.UNCLEAR])
def test_an_order_that_was_seen_is_never_not_found(first: Word, then: Word) -> None:
    """It was shown open, it was cancelled again, and now it is in no list: the venue knows it, so whatever became
    of it, `not_found` would be false."""
    journey = Journey(INTENTS["by order id"])
    while len(journey.cancels()) < 2:
        journey.step(by_words(first, Word.OPEN) if not journey.calls else by_words(then, Word.OPEN))
    end = journey.run(absent_from_read_places(then), most=FOR_EVER)
    assert end.status is Status.unresolved


def absent_from_read_places(cancel: Word) -> Say:
    """Every place is read to its end and holds nothing."""

    def say(route: Route, one: Target) -> Reply:
        if route.stage is Stage.CANCEL:
            return Reply(cancel, "43001", "x", 400)
        (reply,) = BITGET.decode(route, [one], answer([]))
        return reply

    return say


@pytest.mark.parametrize("intent", [*INTENTS.values(), *BULK.values()], ids=[*INTENTS, *BULK])
def test_silence_alone_never_ends_but_as_unresolved(intent: Target) -> None:
    journey = Journey(intent)
    end = journey.run(silence(Silence.NO_ANSWER), most=FOR_EVER)
    assert end.status is Status.unresolved
    assert len(journey.cancels()) <= POLICY.max_attempts


@pytest.mark.parametrize("intent", INTENTS.values(), ids=INTENTS)
def test_one_more_silence_or_doubt_never_ends_but_as_unresolved(intent: Target) -> None:
    """From every state on the way, not only from the start."""
    words: list[Say] = [silence(Silence.NO_ANSWER), by_words(Word.UNCLEAR, Word.UNCLEAR)]
    for cancel, look, stop in product(
        [Word.ACKNOWLEDGED, Word.GONE, Word.AGAIN], [Word.OPEN, Word.ABSENT], range(0, 60, 7)
    ):
        for say in words:
            journey = Journey(intent)
            while len(journey.calls) < stop and journey.end is None:
                journey.step(by_words(cancel, look))
            if journey.end is None:
                verdict = journey.step(say)
                assert isinstance(verdict, Go) or verdict.status is Status.unresolved


# -- bounds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intent", INTENTS.values(), ids=INTENTS)
@pytest.mark.parametrize("cancel", CANCEL_WORDS)
def test_the_same_answers_for_ever_come_to_an_end(intent: Target, cancel: Word) -> None:
    for look in LOOK_WORDS:
        journey = Journey(intent)
        end = journey.run(by_words(cancel, look), most=FOR_EVER)
        check_end(journey, end)


WORDS = st.tuples(
    st.lists(st.sampled_from([*CANCEL_WORDS, *RETURNED]), max_size=4, unique=True),
    st.lists(st.sampled_from([*LOOK_WORDS, Word.UNREAD, *RETURNED]), max_size=5, unique=True),
)


@settings(max_examples=150)
@given(st.sampled_from(list(INTENTS)), WORDS, st.integers(0, 2**32), st.sampled_from([1_000, 20_000, 2_000_000]))
def test_any_answers_in_any_order_come_to_an_end(
    name: str, words: tuple[list[Word], list[Word]], seed: int, rtt_us: int
) -> None:
    rng = random.Random(seed)
    cancel_words = [*words[0], Word.UNCLEAR]
    look_words = [*words[1], rng.choice([Word.UNCLEAR, Word.ABSENT, Word.OPEN])]

    def say(route: Route, one: Target) -> Reply | Silence:
        if rng.random() < 0.1:
            return rng.choice(list(Silence))
        if route.stage is Stage.CANCEL:
            return Reply(rng.choice(cancel_words), "1", "x", 200)
        return Reply(rng.choice(look_words), "1", "x", 200, place=place_of(route))

    journey = Journey(INTENTS[name], seed=seed, rtt_us=rtt_us)
    end = journey.run(say, most=FOR_EVER)
    check_end(journey, end)
    check_gaps(journey)


def check_end(journey: Journey, end: Finish) -> None:
    """What an end rests on, and what it cost."""
    last = journey.calls[-1]
    assert not isinstance(last.said, Silence) or end.status is Status.unresolved
    word = last.said.word if isinstance(last.said, Reply) else None
    if end.status in ENDS.values():
        assert word is not None
        assert (last.route.stage, ENDS.get(word)) == (Stage.LOOK, end.status)
    if end.status is Status.not_found:
        assert word is Word.ABSENT
    refused = (Word.FAILED, Word.SPLIT, Word.DOUBTED)
    if end.status is Status.rejected and word is Word.OPEN:
        # The last cancel was refused for good, and an earlier one has not closed the order in all that time.
        last_cancel = journey.cancels()[-1]
        assert isinstance(last_cancel.said, Reply)
        assert last_cancel.said.word in refused
        assert last.sent_us - last_cancel.sent_us >= journey.venue.timing.patience_us
    elif end.status is Status.rejected:
        assert word in refused
    elif word in (Word.UNCLEAR, Word.ACKNOWLEDGED, Word.OPEN, Word.GONE):
        assert end.status is Status.unresolved
    assert end.known == (word in ENDED)
    assert len(journey.cancels()) <= POLICY.max_attempts
    assert end.state.attempts == len(journey.cancels())
    # A page that served others and not this one is told apart, and has a bound of its own.
    unread = sum(isinstance(c.said, Reply) and c.said.word is Word.UNREAD for c in journey.looks())
    assert len(journey.looks()) - unread <= end.state.lookups <= POLICY.max_lookups
    assert len(journey.looks()) <= POLICY.max_lookups + POLICY.max_unread


def check_gaps(journey: Journey) -> None:
    """The venue refuses a second cancel of an order within a second (45129)."""
    cancels = journey.cancels()
    for first, second in pairwise(cancels):
        halved = isinstance(first.said, Reply) and first.said.word is Word.SPLIT
        assert halved or second.sent_us - first.back_us >= BITGET.timing.gap_us


@pytest.mark.parametrize("intent", INTENTS.values(), ids=INTENTS)
def test_not_found_rests_on_a_place_that_was_read(intent: Target) -> None:
    """Absent everywhere before the budget ended, and then a page that does not reach: that page proves nothing."""
    for unread_after_us in range(0, 12_000_000, 1_500_000):
        journey = Journey(intent)
        absent = absent_from_read_places(Word.GONE)

        def say(route: Route, one: Target, late_us: int = unread_after_us) -> Reply | Silence:
            late = journey.now_us - journey.calls[0].back_us >= late_us if journey.calls else False  # noqa: B023
            return Reply(Word.UNREAD, place=place_of(route)) if late else absent(route, one)  # noqa: B023

        end = journey.run(say, most=FOR_EVER)
        last = journey.calls[-1].said
        assert isinstance(last, Reply)
        assert end.status is Status.unresolved or last.word is Word.ABSENT


@pytest.mark.parametrize("looks", range(1, 6))
@pytest.mark.parametrize("intent", INTENTS.values(), ids=INTENTS)
def test_what_was_read_before_a_long_pause_proves_no_absence(intent: Target, looks: int) -> None:
    """The cancel was executed and not answered; at first no list shows the end; then nobody looks for a while, and when
    the lane goes on its budget is over."""
    journey = Journey(intent)

    def say(route: Route, one: Target) -> Reply | Silence:
        if route.stage is Stage.CANCEL:
            return Silence.NO_ANSWER
        place = place_of(route)
        if journey.now_us >= 1_000_000_000 + 20_000_000 and "open" not in place:
            return Reply(Word.CANCELLED, place=place)
        walk = {**one.notes.get("walk", {}), place: {"at": "", "pages": 1, "end": True}}
        return Reply(Word.ABSENT, place=place, notes={} if one.order_id or place == "info" else {"walk": walk})

    for _ in range(1 + looks):
        journey.step(say)
    journey.now_us = 1_000_000_000 + 20_000_000
    assert journey.run(say, most=FOR_EVER).status is Status.cancelled


def test_an_acknowledged_order_that_stays_open_is_looked_at_within_the_bound() -> None:
    """The patience with an asynchronous venue counts look-ups like everything else."""
    for seed in range(5):
        journey = Journey(INTENTS["by order id"], seed=seed, rtt_us=1_000)
        end = journey.run(by_words(Word.ACKNOWLEDGED, Word.OPEN), most=FOR_EVER)
        assert end.status is Status.unresolved
        assert len(journey.looks()) <= POLICY.max_lookups


@pytest.mark.parametrize("intent", INTENTS.values(), ids=INTENTS)
def test_a_place_that_can_never_be_read_far_enough_ends_unresolved(intent: Target) -> None:
    """A list that ignores its cursor serves the same page for ever."""
    journey = Journey(intent)
    end = journey.run(by_words(Word.GONE, Word.UNREAD), most=FOR_EVER)
    assert end.status is Status.unresolved


@pytest.mark.parametrize("refusal", [Word.FAILED, Word.SPLIT])
@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("first", [Word.ACKNOWLEDGED, Word.UNCLEAR, Silence.NO_ANSWER, Word.AGAIN, Word.GONE])
def test_a_refusal_is_no_outcome_where_an_earlier_cancel_may_have_worked(
    first: Word | Silence, closes: bool, refusal: Word
) -> None:
    """The list is stale for a while, or the order has stayed open; the second cancel is refused as one that can never
    work."""
    refused_us = 0

    def say(route: Route, one: Target) -> Reply | Silence:
        nonlocal refused_us
        if route.stage is Stage.LOOK:
            over = closes and refused_us and journey.now_us > refused_us + 1_000_000
            return Reply(Word.CANCELLED if over else Word.OPEN, place="info")
        if len(journey.cancels()) == 0:
            return first if isinstance(first, Silence) else Reply(first, "1", "said so", 200)
        refused_us = journey.now_us
        return Reply(refusal, "2", "never", 400)

    journey = Journey(INTENTS["by order id"])
    end = journey.run(say, most=200)
    if first in (Word.AGAIN, Word.GONE):  # nothing was carried out
        assert (end.status, end.evidence) == (Status.rejected, "reply")
    else:
        assert (end.status, end.evidence) == (Status.cancelled if closes else Status.rejected, "query")


@pytest.mark.parametrize("word", [Word.AGAIN, Word.DOUBTED, Word.LATER])
def test_what_may_be_repeated_is_repeated_after_the_gap_and_told(word: Word) -> None:
    journey = Journey(INTENTS["by order id"])
    verdict = journey.step(by_words(word, Word.OPEN))
    assert isinstance(verdict, Go)
    assert (verdict.tell, verdict.state.stage) == (Status.retrying, Stage.CANCEL)
    assert verdict.delay_us is not None
    assert BITGET.timing.gap_us <= verdict.delay_us <= BITGET.timing.gap_us + POLICY.later_most_us


def test_a_venue_down_for_minutes_is_waited_for() -> None:
    """The waits grow, so that attempts are not used up at once."""
    waited = []
    for seed in range(50):
        journey = Journey(INTENTS["by order id"], seed=seed)
        journey.run(by_words(Word.LATER, Word.UNCLEAR), most=FOR_EVER)
        cancels = journey.cancels()
        waited.append(cancels[-1].sent_us - cancels[0].sent_us)
    assert sum(waited) / len(waited) > 60_000_000


def test_an_order_that_stays_open_is_cancelled_again_and_then_told_unresolved() -> None:
    journey = Journey(INTENTS["by order id"])
    end = journey.run(by_words(Word.UNCLEAR, Word.OPEN), most=FOR_EVER)
    assert (end.status, len(journey.cancels())) == (Status.unresolved, POLICY.max_attempts)
    assert "open" in end.detail
    check_gaps(journey)


def test_an_acknowledged_order_gets_its_time_before_it_is_cancelled_again() -> None:
    journey = Journey(INTENTS["by order id"])
    while len(journey.cancels()) < 2:
        journey.step(by_words(Word.ACKNOWLEDGED, Word.OPEN))
    first, second = journey.cancels()
    assert second.sent_us - first.back_us >= BITGET.timing.patience_us


def test_the_times_of_the_call_that_carried_the_last_attempt_are_kept() -> None:
    journey = Journey(INTENTS["by order id"])
    journey.step(by_words(Word.ACKNOWLEDGED, Word.OPEN))
    call = journey.state.notes["call"]
    assert call["b"] == journey.state.batch_id
    assert call["a"] - call["s"] == journey.rtt_us
    silent = Journey(INTENTS["by order id"])
    silent.step(silence(Silence.NO_ANSWER))
    assert "a" not in silent.state.notes["call"], "no answer has no time"


def test_what_an_answer_taught_is_kept_for_the_next_call() -> None:
    journey = Journey(INTENTS["by client id"])
    journey.step(lambda route, one: Reply(Word.ACKNOWLEDGED, "00000", http_status=200, order_id=ORDER_ID))
    assert journey.state.notes["oid"] == ORDER_ID
    assert journey.state.look_class == "any", "from now on it is looked for by order id"
    while journey.state.stage is Stage.LOOK:
        journey.step(by_words(Word.UNCLEAR, Word.OPEN))
    assert journey.state.cancel_class == "by-id"


# -- symbol and account --------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(st.sampled_from(list(BULK)), st.integers(0, 2**32))
def test_sweeps_make_one_bulk_call_at_most_and_end(name: str, seed: int) -> None:
    """The open lists answer anything; after some time they answer nothing readable, or the same for ever."""
    rng = random.Random(seed)
    stuck = rng.choice([Word.UNCLEAR, Word.LISTED])
    left = rng.randrange(40)

    def say(route: Route, one: Target) -> Reply | Silence:
        nonlocal left
        left -= 1
        if rng.random() < 0.1:
            return rng.choice(list(Silence))
        if route.stage is Stage.CANCEL:
            return Reply(rng.choice([w for w in [*CANCEL_WORDS, *RETURNED] if w not in (Word.FAILED, Word.SPLIT)]))
        word = rng.choice([Word.LISTED, Word.UNCLEAR, Word.REFUSED]) if left > 0 else stuck
        todo = [{"id": str(n), "symbol": "BTCUSDT"} for n in range(1, rng.randrange(1, 60))] if left > 0 else []
        end = left <= 0 or rng.random() < 0.5
        listed = {"todo": todo, "open": len(todo) or 1, "end": end, "k": 0, "of": 0}
        return Reply(word, notes={"sweep": listed} if word is Word.LISTED else {})

    journey = Journey(BULK[name], seed=seed)
    end = journey.run(say, most=FOR_EVER)
    assert end.status is Status.unresolved
    bulk = [c for c in journey.cancels() if c.route.name == "cancel-symbol-order"]
    assert len(bulk) <= (1 if name == "symbol" else 0)


def test_a_sweep_ends_as_cancelled_only_when_a_whole_pass_found_nothing() -> None:
    journey = Journey(BULK["symbol"])
    journey.step(by_words(Word.ACKNOWLEDGED, Word.UNCLEAR))
    for open_, end in ((1, True), (0, False)):
        listed = {"todo": [], "open": open_, "end": end, "k": 0, "of": 0}
        assert isinstance(journey.step(lambda r, t: Reply(Word.LISTED, notes={"sweep": listed})), Go)  # noqa: B023
    done = {"todo": [], "open": 0, "end": True, "k": 1, "of": 0}
    verdict = journey.step(lambda r, t: Reply(Word.LISTED, notes={"sweep": done}))
    assert isinstance(verdict, Go), "a list that lags may hide an order for a moment"
    verdict = journey.step(lambda r, t: Reply(Word.LISTED, notes={"sweep": done}))
    assert isinstance(verdict, Finish)
    assert (verdict.status, verdict.evidence, verdict.open_orders) == (Status.cancelled, "query", 0)


def test_a_pass_that_cancelled_late_is_no_reason_to_give_up() -> None:
    """Where permits are scarce, the cancels of one pass may wait for longer than the budget. What that pass counted as
    open was counted ahead of them."""
    open_ = {f"{n}": {"id": f"{n}", "symbol": "BTCUSDT"} for n in range(3)}

    def say(route: Route, one: Target) -> Reply:
        if route.stage is Stage.CANCEL:
            for row in one.notes.get("sweep", {}).get("todo", []):
                open_.pop(row["id"], None)
            return Reply(Word.ACKNOWLEDGED)
        now = one.notes.get("sweep", {})
        if now.get("open") and not now.get("end"):
            # The trailing page of a list that was not known to be over.
            return Reply(Word.LISTED, notes={"sweep": {**now, "todo": [], "end": True}})
        todo = list(open_.values()) if one.may_cancel else []
        if todo:
            journey.now_us += POLICY.sweep_budget_us + 10_000_000
        end = not todo
        return Reply(Word.LISTED, notes={"sweep": {"todo": todo, "open": len(open_), "end": end}})

    journey = Journey(BULK["symbol"])
    end = journey.run(say, most=FOR_EVER)
    assert not open_
    assert (end.status, end.open_orders) == (Status.cancelled, 0)


def test_a_bulk_call_refused_for_good_is_rejected() -> None:
    end = Journey(BULK["symbol"]).run(lambda r, t: Reply(Word.FAILED, "40034", "symbol: bad", 400), most=1)
    assert (end.status, end.evidence) == (Status.rejected, "reply")


@pytest.mark.parametrize("began", ["bulk", "list"])
def test_a_sweep_that_has_begun_is_not_rejected_for_a_list_that_fails(began: str) -> None:
    """It may have cancelled some: rejected would say that nothing was done."""
    journey = Journey(BULK["symbol"])
    journey.step(by_words(Word.ACKNOWLEDGED if began == "bulk" else Word.REFUSED, Word.UNCLEAR))
    if began == "list":
        first = {"todo": [], "open": 1, "end": False, "k": 0, "of": 0}
        journey.step(lambda r, t: Reply(Word.LISTED, notes={"sweep": first}))
    end = journey.run(by_words(Word.ACKNOWLEDGED, Word.FAILED), most=FOR_EVER)
    assert end.status is Status.unresolved


def test_a_sweep_goes_on_as_long_as_its_lists_can_be_read_in_between() -> None:
    journey = Journey(BULK["symbol"])
    journey.step(by_words(Word.ACKNOWLEDGED, Word.UNCLEAR))
    for _ in range(POLICY.max_lookups):
        journey.step(by_words(Word.ACKNOWLEDGED, Word.UNCLEAR))
        page = {"todo": [], "open": 0, "end": False, "k": 0, "of": 0}
        journey.step(lambda r, t: Reply(Word.LISTED, notes={"sweep": page}))  # noqa: B023
    assert journey.end is None


def test_what_a_sweep_counted_last_is_told_where_its_lists_cannot_be_read_any_more() -> None:
    journey = Journey(BULK["symbol"])
    journey.step(by_words(Word.ACKNOWLEDGED, Word.UNCLEAR))
    listed = {"todo": [], "open": 3, "end": True, "k": 1, "of": 0}
    journey.step(lambda r, t: Reply(Word.LISTED, notes={"sweep": listed}))
    end = journey.run(by_words(Word.ACKNOWLEDGED, Word.UNCLEAR), most=FOR_EVER)
    assert (end.status, end.open_orders) == (Status.unresolved, 3)


def test_a_place_that_cannot_be_read_sends_only_what_was_not_sent_before() -> None:
    for attempts, then in ((0, Stage.CANCEL), (1, Stage.LOOK)):
        journey = Journey(INTENTS["by order id"])
        if attempts:
            journey.step(by_words(Word.UNCLEAR, Word.UNCLEAR))
        journey.state.stage = Stage.LOOK
        verdict = journey.step(by_words(Word.UNCLEAR, Word.UNSEEABLE))
        assert (verdict.state.attempts, verdict.state.stage) == (attempts, then)


def test_what_a_bulk_call_left_open_is_told_with_its_number() -> None:
    listed = {"todo": [], "open": 3, "end": True, "k": 1, "of": 0}

    def say(route: Route, one: Target) -> Reply:
        return Reply(Word.ACKNOWLEDGED) if route.stage is Stage.CANCEL else Reply(Word.LISTED, notes={"sweep": listed})

    journey = Journey(BULK["symbol"])
    end = journey.run(say, most=FOR_EVER)
    assert (end.status, end.open_orders) == (Status.unresolved, 3)
    assert journey.now_us - journey.calls[0].back_us >= POLICY.sweep_budget_us


# -- the judge is a function of its arguments ----------------------------------------------------------------


@given(st.sampled_from(list(INTENTS)), st.sampled_from(CANCEL_WORDS), st.integers(0, 2**16))
def test_the_same_arguments_have_the_same_verdict(name: str, word: Word, seed: int) -> None:
    one, other = Journey(INTENTS[name], seed=seed), Journey(INTENTS[name], seed=seed)
    assert one.step(by_words(word, Word.OPEN)) == other.step(by_words(word, Word.OPEN))


def test_every_word_has_a_verdict_in_every_stage() -> None:
    """Also those that no table would put there: a venue's adapter may be wrong, but nothing may be lost by it."""
    at = Moment(2_000_000, 1, 2)
    for word, intent in product(Word, [*INTENTS.values(), BULK["symbol"]]):
        journey = Journey(intent)
        taken = journey.state.at_rest(1)
        notes = {"sweep": {"end": True}} if word is Word.LISTED else {}
        said = Reply(word, place="info", notes=notes)
        assert journey.judge.look(journey.state, taken, journey.fields, said, at)
        assert journey.judge.cancel(journey.state, journey.state.at_rest(1), journey.fields, said, at)


# -- looks back ----------------------------------------------------------------------------------------------


def look_back(intent: Target) -> Journey:
    """A look back at an intent that ended long ago, as the job leaves it in the lane."""
    journey = Journey(intent)
    journey.fields[LOOKS_BACK] = "old"
    journey.state.stage, journey.state.notes = Stage.LOOK, {**journey.state.notes, "known": 1}
    journey.state.look_class = BITGET.next_look(Target(journey.fields, journey.state.notes)).look_class
    return journey


@pytest.mark.parametrize("intent", INTENTS.values(), ids=INTENTS)
@given(
    words=st.lists(st.sampled_from([*LOOK_WORDS, Word.UNSEEABLE, Word.REFUSED, Word.UNREAD]), max_size=30),
    last=st.sampled_from(LOOK_WORDS),
)
@settings(max_examples=40)
def test_a_look_back_never_cancels_and_never_says_not_found(intent: Target, words: list[Word], last: Word) -> None:
    journey, said = look_back(intent), iter(words)
    end = journey.run(lambda route, one: Reply(next(said, last), place=route.name), most=FOR_EVER)
    assert journey.cancels() == []
    assert all(call.before.stage is Stage.LOOK for call in journey.calls)
    assert end.status in {Status.unresolved, *ENDS.values()}
    assert (end.status is Status.unresolved) == (journey.calls[-1].said.word not in ENDED)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("venue", "said", "least_us"),
    [
        (BITGET, Word.UNCLEAR, 1_000_000),  # the same order is refused within a second
        (BYBIT, Word.UNCLEAR, 1_000_000),
        (BITGET, Word.ACKNOWLEDGED, 3_000_000),  # it works asynchronously, and its lists may be stale
        (BYBIT, Word.ACKNOWLEDGED, 3_000_000),
    ],
)
def test_an_order_that_is_still_open_is_named_again_when_the_venue_had_its_time(
    venue: Venue, said: Word, least_us: int
) -> None:
    journey = Journey(target(ORDER_ID), venue=venue)
    assert journey.run(by_words(said, Word.OPEN), most=FOR_EVER).status is Status.unresolved
    sent_us = [call.sent_us for call in journey.cancels()]
    assert len(sent_us) == POLICY.max_attempts
    assert min(after - before for before, after in pairwise(sent_us)) >= least_us
