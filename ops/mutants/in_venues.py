"""Breakages of what is known of the venues."""

from __future__ import annotations

from ops.mutants.mutant import Mutant

_VENUES = "worker/cancelq_worker/venues"

MUTANTS = (
    Mutant(
        "unknown-code-is-success",
        f"{_VENUES}/bitget/codes.py",
        "return CODES.get(code, Word.UNCLEAR)",
        "return CODES.get(code, Word.CANCELLED)",
        "an error nobody has seen before is told as cancelled",
        ("tests/unit/test_bitget_adapter.py::test_an_unknown_answer_is_never_definite",),
    ),
    Mutant(
        "bitget-5xx-is-success",
        f"{_VENUES}/bitget/adapter.py",
        "if answer.status >= 500:",
        "if answer.status >= 500 and code == OK:\n        return None\n    if answer.status >= 600:",
        "a gateway's error page is taken for the venue's word",
        ("tests/unit/test_bitget_adapter.py::test_a_server_error_is_unclear_whatever_it_says",),
    ),
    Mutant(
        "bitget-another-orders-answer",
        f"{_VENUES}/bitget/adapter.py",
        '    if target.order_id:\n        return word(row, "orderId") == target.order_id',
        "    if target.order_id:\n        return True",
        "the answer about one order counts for another",
        ("tests/unit/test_bitget_adapter.py::test_an_answer_about_another_order_is_unclear",),
    ),
    Mutant(
        "bitget-filled-is-cancelled",
        f"{_VENUES}/bitget/looks.py",
        '    "filled": Word.FILLED,',
        '    "filled": Word.CANCELLED,',
        "a fill is told as a cancel, and the position is wrong",
        ("tests/unit/test_bitget_looks.py::test_the_venues_word_for_a_state_is_read",),
    ),
    Mutant(
        "bitget-full-page-proves-absence",
        f"{_VENUES}/bitget/looks.py",
        "return Reply(Word.ABSENT if read_past else Word.UNREAD, place=place)",
        "return Reply(Word.ABSENT, place=place)",
        "an order behind the end of a page is told as unknown",
        ("tests/unit/test_bitget_looks.py::test_a_page_proves_absence_only_as_far_as_it_was_read",),
    ),
    Mutant(
        "bitget-walk-cut-short",
        f"{_VENUES}/bitget/looks.py",
        "ended = not more if isinstance(more, bool) else len(data) < PAGE",
        "ended = True",
        "a history read half proves that an order never was",
        ("tests/unit/test_bitget_looks.py::test_a_history_is_walked_page_by_page_to_its_end",),
    ),
    Mutant(
        "bitget-mixed-ids",
        f"{_VENUES}/bitget/adapter.py",
        "if len({tuple(ref) for _, ref in refs}) > 1:",
        "if False:",
        "the venue ignores half of a batch",
        ("tests/unit/test_bitget_adapter.py::test_id_kinds_are_not_mixed",),
    ),
    Mutant(
        "bybit-parameter-error-is-an-end",
        f"{_VENUES}/bybit/codes.py",
        '(Word.ACCOUNT, "10003 33004 -2015", "BY-doc, ccxt: key invalid, expired, or of another environment")',
        '(Word.GONE, "10003 33004 -2015", "BY-doc, ccxt: key invalid, expired, or of another environment")',
        "a refused key is booked as an order that is gone",
        ("tests/unit/test_bybit_codes.py",),
    ),
    Mutant(
        "bybit-clock-error-is-an-end",
        f"{_VENUES}/bybit/codes.py",
        '(Word.CLOCK, "10002 -1", "BY-doc: time stamp outside the window; request expired")',
        '(Word.GONE, "10002 -1", "BY-doc: time stamp outside the window; request expired")',
        "a clock that drifts is booked as orders that are gone",
        ("tests/unit/test_bybit_codes.py",),
    ),
    Mutant(
        "bybit-batch-counts-as-one-call",
        f"{_VENUES}/bybit/adapter.py",
        "most=BATCH_MOST, least=2, per_call=0, per_order=1",
        "most=BATCH_MOST, least=2, per_call=1, per_order=0",
        "the limit is counted in calls where the venue counts orders",
        ("tests/unit/test_bybit_adapter.py::test_a_batch_costs_a_unit_for_each_order",),
    ),
    Mutant(
        "bulk-call-widens-to-the-account",
        f"{_VENUES}/sweeping.py",
        'if target.scope != "symbol" or not target.symbol:',
        "if False:",
        "a pair that got lost on the way empties the whole account",
        ("tests/unit/test_bybit_adapter.py::test_a_cancel_names_what_it_is_about_or_is_not_made",),
    ),
    Mutant(
        "bingx-order-id-as-a-number",
        f"{_VENUES}/bingx/rows.py",
        "        value = str(value)\n    return value if isinstance(value, str) and is_order_id(value)",
        "        value = str(int(float(value)))\n    return value if isinstance(value, str) and is_order_id(value)",
        "BingX' ids are larger than a double holds: another order is meant",
        ("tests/unit/test_bingx_looks.py", "tests/unit/test_bingx_answers.py"),
    ),
    Mutant(
        "bingx-busy-is-a-refusal",
        f"{_VENUES}/bingx/codes.py",
        'Row(Word.AGAIN, "100410", _BUSY, "ccxt"),\n',
        "",
        "a busy venue closes the lane for five minutes",
        ("tests/unit/test_bingx_codes.py",),
    ),
    Mutant(
        "bitget-push-tells-the-last-fill",
        "worker/cancelq_worker/venues/bitget/stream.py",
        'filled=filled(word(row, "accBaseVolume"))',
        'filled=filled(word(row, "baseVolume"))',
        "`filled` is what the last trade filled, or nothing where the push is about the cancel, not what was "
        "filled in all: a cancelled order that filled in part leaves a position nobody knows of",
        ("tests/unit/test_bitget_stream.py::test_what_was_filled_is_what_was_filled_in_all",),
    ),
    Mutant(
        "bingx-push-tells-the-last-fill",
        "worker/cancelq_worker/venues/bingx/stream.py",
        '"executedQty": data.get("z")',
        '"executedQty": data.get("l")',
        "`filled` is what the last trade filled, nothing in the push of a cancel: a cancelled order that "
        "filled in part leaves a position nobody knows of",
        ("tests/unit/test_bingx_stream.py::test_what_was_filled_is_what_was_filled_in_all",),
    ),
    Mutant(
        "bybit-trigger-that-fires-ends-the-cancel-of-the-order",
        "worker/cancelq_worker/venues/bybit/stream.py",
        'scopes, reply.child_order_id = ("tpsl", "stop"), order_id',
        "reply.child_order_id = order_id",
        "an order that fires goes on in the book under its own id: the push also ends the intent that means "
        "the normal order it is now, which is told as `triggered` and stays live",
        ("tests/unit/test_bybit_stream.py::test_that_a_trigger_fired_is_told_to_those_alone_who_meant_the_trigger",),
    ),
    Mutant(
        "bitget-pairs-in-small-letters-are-passed-over",
        "worker/cancelq_worker/venues/bitget/sweeps.py",
        'row["symbol"].upper()',
        'row["symbol"]',
        "Bitget's own examples spell pairs in small letters: an open list that does so holds nothing of the "
        "pair that was asked for, and the sweep is told as `cancelled` while every order it left is live",
        ("tests/unit/test_bitget_sweeps.py::test_pairs_in_small_letters_are_the_same_pairs",),
    ),
    Mutant(
        "bybit-limit-told-without-bound",
        "worker/cancelq_worker/venues/bybit/answers.py",
        "return size if 1 <= size <= LIMIT_MOST else None",
        "return size or None",
        "a header of nonsense makes the bucket of the whole fleet as large as 999,999 a second: everything "
        "that waits is sent at once, over the limit, and the address is banned",
        ("tests/unit/test_bybit_adapter.py::test_a_limit_is_taken_from_the_venue_up_to_the_largest_it_grants",),
    ),
    Mutant(
        "bingx-limits-of-the-settings-unused",
        "worker/cancelq_worker/venues/bingx/kind.py",
        "account.limits, account.batch_size)",
        "None, account.batch_size)",
        "a lead trader, whom BingX grants one call a second, sets his limit and goes over it at every burst",
        ("tests/unit/test_settings.py::test_every_limit_of_an_account_is_what_its_venue_keeps",),
    ),
    Mutant(
        "bitget-demo-without-its-header",
        "worker/cancelq_worker/venues/bitget/kind.py",
        "passphrase, account.demo)",
        "passphrase)",
        "`demo = true` of a Bitget account changes nothing of what is sent: a demo account is refused, and a "
        "live key in it cancels real orders instead of being refused",
        ("tests/unit/test_settings.py::test_calls_of_a_bitget_account_say_whether_it_is_of_the_demo",),
    ),
    Mutant(
        "a-crowd-by-name-is-asked-for-one-by-one",
        "worker/cancelq_worker/venues/bitget/looks.py",
        'Route("history-named", Stage.LOOK, ("named",), "history-orders", most=PAGE, least=MANY)',
        'Route("history-named", Stage.LOOK, ("named",), "history-orders", least=MANY)',
        "after an outage hundreds of orders named by client id are told twenty a second",
        ("tests/integration/test_lane_truth.py::test_after_an_outage_many_orders_are_looked_for_on_few_pages",),
    ),
    Mutant(
        "a-page-serves-for-ever-who-waits-for-a-call-of-its-own",
        "worker/cancelq_worker/venues/bitget/looks.py",
        "    return read < MANY_READS and fails < MANY_FAILS\n",
        "    return fails < MANY_FAILS\n",
        "in a crowd an order that no page shows is never asked for by its id, and its look-ups are used up",
        ("tests/unit/test_bitget_looks.py::test_pages_serve_who_waits_for_a_call_of_its_own_until_they_failed_to",),
    ),
    Mutant(
        "bybit-gap-in-another-unit",
        "worker/cancelq_worker/venues/bybit/adapter.py",
        "gap_us=1_050_000",
        "gap_us=1_050",
        "an order is named again a millisecond after it was named: the attempts are used up while Bybit is "
        "still at the first, and the order is told as `unresolved`",
        ("tests/unit/test_verdict.py::test_an_order_that_is_still_open_is_named_again_when_the_venue_had_its_time",),
    ),
    Mutant(
        "bitget-patience-in-another-unit",
        "worker/cancelq_worker/venues/bitget/adapter.py",
        "patience_us=3_000_000",
        "patience_us=3_000",
        "what Bitget has acknowledged and its lists still show is cancelled again at once: the attempts are "
        "used up while the venue works, and the order is told as `unresolved`",
        ("tests/unit/test_verdict.py::test_an_order_that_is_still_open_is_named_again_when_the_venue_had_its_time",),
    ),
    Mutant(
        "venues-timer-longer-than-it-takes",
        "worker/cancelq_worker/venues/bingx/timer.py",
        "longest_s: Final = 120.0",
        "longest_s: Final = 1200.0",
        "a guard of more than two minutes asks for a timer that BingX refuses: when the fleet dies nothing cancels",
        (
            "tests/integration/test_guard.py::test_a_guard_of_minutes_sets_the_venue_s_own_timer_to_the_longest_it_takes",
        ),
    ),
    Mutant(
        "bingx-conditions-go-into-a-batch",
        "worker/cancelq_worker/venues/bingx/adapter.py",
        'kind = "blind-one" if "only_if" in target.fields or target.scope != "order" else "blind"',
        'kind = "blind"',
        "where lists tell no client ids, a trigger order or a conditional cancel named by client id waits for "
        "a batch that cannot carry it, and its order is never cancelled",
        ("tests/integration/test_bingx_closed.py::test_live_orders_named_by_client_id_are_cancelled_all_the_same",),
    ),
    Mutant(
        "time-nought-is-old",
        "worker/cancelq_worker/venues/reading.py",
        "return ms if ms >= _YEAR_2000_MS else None",
        "return ms",
        "an order whose row tells 0 for its creation time counts as older than every intent, and is cancelled",
        (
            "tests/conformance/suite/test_sweeps.py::test_an_order_that_tells_no_age_is_not_cancelled_and_not_passed_over",
        ),
    ),
    Mutant(
        "bingx-cancel-that-failed-is-an-end",
        "worker/cancelq_worker/venues/bingx/answers.py",
        "_ENDS: Final = (Word.CANCELLED, Word.FILLED, Word.TRIGGERED)",
        "_ENDS: Final = (Word.CANCELLED, Word.FILLED, Word.TRIGGERED, Word.CLOSED)",
        "FAILED in the answer to a cancel may be the cancel's own end: the order is told as `closed` and is live",
        ("tests/unit/test_bingx_answers.py::test_the_order_in_the_answer_is_the_venues_word",),
    ),
    Mutant(
        "age-by-the-desks-clock",
        "worker/cancelq_worker/venues/sweeping.py",
        "least, most = target.older_than_ms or (given_ms, given_ms)",
        "least, most = given_ms, given_ms",
        "`older_than_ms` is compared with the venue's times as it was given: where the venue's clock is ahead "
        "nothing is cancelled and the sweep is told as done, where it is behind newer orders are cancelled",
        ("tests/integration/test_three_lanes.py::test_only_what_is_meant_is_swept",),
    ),
    Mutant(
        "bybit-item-of-a-batch-closes-the-lane",
        "worker/cancelq_worker/venues/bybit/answers.py",
        "if reply.word in (Word.ACCOUNT, Word.CLOCK):",
        "if reply.word is Word.CLOCK:",
        "one order of a batch that is answered with an account's code holds the lane until a person comes, "
        "although the others of the same call were cancelled",
        ("tests/unit/test_bybit_codes.py::test_an_item_of_a_batch_is_told_by_its_code",),
    ),
)
