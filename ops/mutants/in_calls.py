"""Breakages of lanes, of the calls they carry, and of the doors they go through."""

from __future__ import annotations

from ops.mutants.mutant import Mutant

_WORKER = "worker/cancelq_worker"
_TRUTH = "tests/integration/test_lane_truth.py::"

MUTANTS = (
    Mutant(
        "bulk-call-made-again",
        f"{_WORKER}/carrier.py",
        'target.may_bulk = work.before.attempts == 0 and "nobulk" not in work.before.notes',
        "target.may_bulk = True",
        "orders that are newer than the intent are cancelled with it",
        ("tests/integration/test_bingx_truth.py::test_what_a_bulk_call_left_goes_by_order_id",),
    ),
    Mutant(
        "late-call-is-sent",
        f"{_WORKER}/carrier.py",
        "send_by_ns = call.asked_ns + SEND_BY_MS * 1_000_000",
        "send_by_ns = monotonic_ns() + SEND_BY_MS * 1_000_000",
        "a worker that stalled sends with a permit that others have by now",
        ("tests/integration/test_send_by.py::test_a_call_past_its_send_by_time_is_given_back_and_not_sent",),
    ),
    Mutant(
        "draining-still-sends",
        f"{_WORKER}/carrier.py",
        "if monotonic_ns() >= send_by_ns or self.draining:",
        "if monotonic_ns() >= send_by_ns:",
        "a worker told to stop goes on sending what it had taken",
        ("tests/integration/test_send_by.py::test_a_worker_that_drains_sends_nothing_of_what_it_took",),
    ),
    Mutant(
        "draining-still-takes",
        f"{_WORKER}/lane.py",
        "takes = [] if self._draining else self._takes(1 if self._hurried else TAKES)",
        "takes = self._takes(1 if self._hurried else TAKES)",
        "a worker told to stop never ends under load",
        ("tests/integration/test_send_by.py::test_a_drain_behind_a_long_queue_takes_nothing_new",),
    ),
    Mutant(
        "no-distance-of-ones-own",
        f"{_WORKER}/carrier.py",
        "await asyncio.sleep(batch.fastest_us / 1e6)",
        "pass",
        "a near worker's first calls overtake those of a far one at the venue, and break the limit",
        ("tests/integration/test_send_by.py::test_a_worker_without_round_trips_of_its_own_waits_the_fleets_fastest",),
    ),
    Mutant(
        "settlement-lost-with-the-link",
        f"{_WORKER}/lane.py",
        "            self._outcomes = outcomes + self._outcomes\n",
        "",
        "each break of the link to Redis makes every call of that moment a doubt, to be looked up",
        ("tests/integration/test_send_by.py::test_a_settlement_whose_round_failed_is_made_again",),
    ),
    Mutant(
        "push-ends-another-order",
        f"{_WORKER}/lane.py",
        "finish = next((ended[key] for key in orders if key in ended), None)",
        "finish = next(iter(ended.values()), None)",
        "an order gets the outcome of the one beside it",
        ("tests/integration/test_streams.py::test_pushes_of_several_orders_at_once_end_each_its_own",),
    ),
    Mutant(
        "no-answer-is-not-sent",
        f"{_WORKER}/http.py",
        "    httpx.HTTPError: NoAnswer,",
        "    httpx.HTTPError: NotSent,",
        "what the venue executed is sent again, as if it had never left",
        (
            "tests/unit/test_http.py::test_what_a_later_version_adds_may_have_been_sent",
            f"{_TRUTH}test_an_unclear_answer_never_becomes_an_outcome_by_itself",
        ),
    ),
    Mutant(
        "overdue-is-not-sent",
        f"{_WORKER}/http.py",
        'raise NoAnswer("no whole answer within the deadline")',
        'raise NotSent("no whole answer within the deadline")',
        "a call that hangs is sent again while the venue executes it",
        ("tests/unit/test_http.py::test_what_reached_the_venue_may_have_been_executed",),
    ),
    Mutant(
        "redirects-and-huge-bodies",
        f"{_WORKER}/http.py",
        "if size > BODY_MOST:",
        "if False:",
        "one answer fills the worker's memory",
        ("tests/unit/test_http.py::test_a_huge_answer_is_cut_off",),
    ),
    Mutant(
        "clock-ahead-is-forgotten",
        f"{_WORKER}/lane.py",
        'self._close(Hold("*", "leap", min(leapt_us, LEAP_HOLD_US), "the server clock went ahead"))',
        "pass",
        "a step of the server's clock that is seen where nothing was granted frees permits too early",
        ("tests/simulation/test_found.py::test_it_is_mended",),
    ),
    Mutant(
        "units-of-a-dead-process-free-before-the-window",
        "worker/cancelq_worker/egress.py",
        "live_us = UNIT_LIVES_NS // 1000 + LONGEST_CALL_US + window_us",
        "live_us = UNIT_LIVES_NS // 1000 + LONGEST_CALL_US",
        "what a killed worker used of the address and could not report is handed out again after 12 s of a "
        "window of a minute: the address goes over its limit, and is banned",
        (
            "tests/integration/test_egress.py::test_a_unit_that_nobody_reports_is_out_until_its_call_has_left_the_window",
        ),
    ),
    Mutant(
        "time-stamp-refused-for-ever",
        "worker/cancelq_worker/gate.py",
        "if lately and corrected_ns is not None and not signed_before:",
        "if False:",
        "a venue that refuses even a corrected time stamp (a wrong receive window, a broken account) is "
        "called three times a second for ever, and the lane is never told as held",
        (
            "tests/integration/test_clock_faults.py::test_a_time_stamp_that_is_refused_however_the_clock_is_corrected_holds_the_lane",
        ),
    ),
    Mutant(
        "silence-counts-as-an-answer",
        "worker/cancelq_worker/carrier.py",
        'return self._outcome(call, verdicts, "n", 0, monotonic_ns(), True)',
        'return self._outcome(call, verdicts, "a", 0, monotonic_ns(), True)',
        "a call that timed out frees its permit a second early (the venue may still count it), opens a bucket "
        "after a refusal, and is forgotten as a possible error of a BingX endpoint",
        ("tests/integration/test_rate.py::test_a_permit_without_an_answer_is_out_for_a_second_longer_than_the_window",),
    ),
    Mutant(
        "refused-settlement-is-given-up",
        "worker/cancelq_worker/lane.py",
        "if outcome.tries < SETTLE_TRIES:",
        "if outcome.tries > SETTLE_TRIES:",
        "a settlement that Redis refuses once (busy, loading, read-only) is dropped: the answer's times, its "
        "strike and above all the hold in it (a refused key, a limit) are lost, and the venue is knocked at "
        "again",
        ("tests/integration/test_send_by.py::test_a_settlement_that_redis_refuses_is_made_again",),
    ),
    Mutant(
        "times-by-the-venues-clock",
        "worker/cancelq_worker/carrier.py",
        "        clock = self._p.redis_clock\n        # Redis' clock is known to half of a round trip",
        "        clock = self._p.venue_clock\n        # Redis' clock is known to half of a round trip",
        "sent_us and answered_us of every event are the venue's time: at a venue whose clock is off they lie "
        "before the asking or after the settlement, and latencies are wrong",
        ("tests/integration/test_send_by.py::test_the_times_of_a_call_are_by_redis_clock_and_not_by_the_venues",),
    ),
    Mutant(
        "partly-refused-is-not-refused",
        "worker/cancelq_worker/carrier.py",
        "refused = any(r.word is Word.REFUSED for r in replies)",
        "refused = all(r.word is Word.REFUSED for r in replies)",
        "a Bybit batch of which some orders were over the limit widens no margin, is counted for no operator, "
        "and the bucket is opened to all at once instead of to one call",
        ("tests/integration/test_send_by.py::test_a_batch_that_is_refused_in_part_counts_as_refused",),
    ),
    Mutant(
        "sweep-counts-and-cancels-within-the-gap",
        "worker/cancelq_worker/carrier.py",
        'target.may_cancel = bool(work.before.notes.get("may", 1))',
        "target.may_cancel = True",
        "a sweep names every order its list still shows again, within the venue's second and at once: refused "
        "cancels, and equal errors at BingX",
        ("tests/integration/test_send_by.py::test_a_sweep_that_only_counts_names_no_order",),
    ),
    Mutant(
        "clocks-are-not-doubted",
        "worker/cancelq_worker/carrier.py",
        "doubt_us = clock.uncertainty_us + redis_clock.uncertainty_us if clock.known else NEVER_US",
        "doubt_us = 0",
        "a sweep takes orders for older that were placed after it was asked, by as much as the venue's clock "
        "is uncertain (a second, where the venue did not tell its time)",
        ("tests/integration/test_send_by.py::test_an_order_that_may_be_newer_by_the_doubt_of_the_clocks_is_not_swept",),
    ),
    Mutant(
        "own-clock-dates-orders",
        "worker/cancelq_worker/carrier.py",
        "redis_clock.uncertainty_us if clock.known else NEVER_US",
        "redis_clock.uncertainty_us",
        "where the venue has not told its time, a worker whose own clock is wrong cancels orders newer than the intent",
        ("tests/integration/test_send_by.py::test_until_the_venue_told_its_time_no_order_is_old_enough_to_be_swept",),
    ),
    Mutant(
        "send-by-is-a-span",
        "worker/cancelq_worker/http.py",
        "departure = _departure(send_by_ns)",
        "departure = _departure(send_by_ns + 1_000_000_000)",
        "a process that stood still while it signed sends with a permit that others have by now",
        ("tests/unit/test_http.py::test_a_process_that_stood_still_before_it_came_to_the_door_does_not_send",),
    ),
    Mutant(
        "kill-forgets-what-fired",
        "worker/cancelq_worker/flatten.py",
        "if not may_have_fired(self._asked, self._ended):",
        "if True:",
        "the kill switch ends well while an order is open that a trigger placed after the normal ones were read",
        ("tests/integration/test_kill.py::test_an_order_that_fires_after_the_normal_ones_were_read_is_not_left",),
    ),
    Mutant(
        "connection-waited-for-past-send-by",
        "worker/cancelq_worker/carrier.py",
        "send_by_ns = call.asked_ns + SEND_BY_MS * 1_000_000",
        "send_by_ns = monotonic_ns() + SEND_BY_MS * 1_000_000",
        "a call that was decided late in its half second waits half a second more for a connection, and "
        "leaves with a permit that is to be given back",
        ("tests/integration/test_send_by.py::test_a_connection_is_waited_for_no_longer_than_the_call_may_wait",),
    ),
    Mutant(
        "page-kept-although-the-server-went-back",
        "worker/cancelq_worker/lane.py",
        "if entry_order(cursor) < entry_order(self.cursor):",
        "if False:",
        "after a loss of the server's tail, or a failover, accepted intents in front of a second watcher's page are "
        "passed by and never seen again",
        (
            "tests/integration/test_send_by.py::"
            "test_entries_before_a_page_are_not_passed_by_where_the_server_lost_what_it_had_last",
        ),
    ),
    Mutant(
        "page-kept-although-another-was-first",
        "worker/cancelq_worker/lane.py",
        "self._entries = reply.entries if result.applied else []",
        "self._entries = reply.entries",
        "(a race) a worker whose page was longer than the one another worker admitted goes on behind its own "
        "page: accepted intents between the two are passed by and never seen again",
        (
            "tests/integration/test_send_by.py::test_entries_behind_the_page_that_another_worker_admitted_first_are_not_passed_by",
        ),
    ),
    Mutant(
        "granted-across-a-step-is-sent",
        "worker/cancelq_worker/lane.py",
        "self._spawn(self._give_back(call) if leapt else self._carry(call))",
        "self._spawn(self._carry(call))",
        "a call whose permit became free only because the server's clock was set ahead is sent, and breaks "
        "the limit (the hold that follows comes a round too late for it)",
        ("tests/integration/test_send_by.py::test_what_is_granted_as_the_servers_clock_goes_ahead_is_given_back",),
    ),
    Mutant(
        "term-leaves-lanes-that-are-leaving",
        "worker/cancelq_worker/engine.py",
        "tasks = {r.task for r in self._running.values()} | set(self._leaving.values())",
        "tasks = {r.task for r in self._running.values()}",
        "TERM just after HUP or after another worker came: the calls of lanes that were being handed over are "
        "cut off in flight, and their answers lost",
        ("tests/integration/test_rotation.py::test_the_answer_to_a_lane_that_was_taken_away_is_waited_for_at_the_end",),
    ),
    Mutant(
        "sweep-takes-the-doubt-for-its-own",
        "worker/cancelq_worker/carrier.py",
        "((asked_us - doubt_us) // 1000, (asked_us + 1_000",
        "((asked_us + doubt_us) // 1000, (asked_us + 1_000",
        "a sweep cancels orders that are newer than itself, within what the clocks may be off",
        ("tests/integration/test_send_by.py::test_an_order_placed_within_the_clocks_doubt_of_a_sweep_is_left_alone",),
    ),
    Mutant(
        "silence-frees-the-address-as-an-answer-does",
        "worker/cancelq_worker/carrier.py",
        "self._p.egress.ended(call.ticket, monotonic_ns(), answered=False)",
        "self._p.egress.ended(call.ticket, monotonic_ns(), answered=True)",
        "one call more than an address may make, after calls that were not answered",
        ("tests/integration/test_send_by.py::test_a_call_without_an_answer_keeps_its_address_unit_as_such",),
    ),
    Mutant(
        "one-refused-frees-the-gap-of-all",
        "worker/cancelq_worker/carrier.py",
        "executed = not all(r.word in _NOT_EXECUTED",
        "executed = not any(r.word in _NOT_EXECUTED",
        "orders that were cancelled are named again within the venue's second",
        ("tests/integration/test_send_by.py::test_a_batch_that_is_refused_in_part_counts_as_refused",),
    ),
    Mutant(
        "acknowledged-condition-told-as-unmet",
        "worker/cancelq_worker/verdict.py",
        'wanted is not None and not state.notes.get("ack") and',
        "wanted is not None and",
        "told as rejected and open, and cancelled a moment later",
        (
            "tests/unit/test_bingx_journeys.py::"
            "test_a_condition_is_told_as_unmet_only_where_the_venue_did_not_take_the_cancel",
        ),
    ),
    Mutant(
        "sweep-that-began-is-rejected",
        "worker/cancelq_worker/verdict.py",
        'fields["scope"] == "symbol" and untouched:',
        'fields["scope"] == "symbol":',
        "told that nothing was done where orders were cancelled",
        ("tests/unit/test_verdict.py::test_a_sweep_that_has_begun_is_not_rejected_for_a_list_that_fails",),
    ),
    Mutant(
        "sent-once-is-sent-again-unseen",
        "worker/cancelq_worker/verdict.py",
        "reply.word is Word.UNSEEABLE and state.attempts == 0:",
        "reply.word is Word.UNSEEABLE:",
        "what may be cancelled already is cancelled again unseen: the next error towards BingX' lock",
        ("tests/unit/test_verdict.py::test_a_place_that_cannot_be_read_sends_only_what_was_not_sent_before",),
    ),
    Mutant(
        "rq-suspend-holds-nothing",
        "worker/cancelq_worker/ledger.py",
        '"1" if take.suspended else "0"',
        '"0"',
        "`rq suspend` is told, and cancels go on",
        ("tests/integration/test_lane_rules.py::test_rq_suspend_holds_normal_cancels_and_not_urgent_ones",),
    ),
    Mutant(
        "page-of-before-the-outage-is-admitted",
        "worker/cancelq_worker/lane.py",
        "            self.cursor = await self._p.ledger.open()\n        self._entries = []",
        "            self.cursor = await self._p.ledger.open()\n        pass",
        "intents between where a restored server stands and what was read before are lost",
        ("tests/integration/test_send_by.py::test_a_page_that_was_read_while_redis_was_away_is_dropped",),
    ),
    Mutant(
        "units-of-before-the-leap-are-used",
        "worker/cancelq_worker/egress.py",
        "if asked_ns < self._leapt_ns:",
        "if False:",
        "an address makes more calls than it may, after the server's clock went ahead",
        ("tests/integration/test_egress.py::test_units_that_were_asked_for_before_the_clock_went_ahead_are_not_used",),
    ),
)
