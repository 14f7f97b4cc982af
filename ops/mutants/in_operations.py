"""Breakages of what operators rely on: audit, archive, jobs, keys and the doctor."""

from __future__ import annotations

from ops.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        "redrive-sends-the-neighbour",
        "worker/cancelq_worker/jobs/unresolved.py",
        "if read.id == one.id and not isinstance(read, Refused):",
        "if not isinstance(read, Refused):",
        "of several intents that were queued in one millisecond, redrive cancels (and reconcile looks at) the "
        "first instead of the unresolved one: another order goes",
        (
            "tests/integration/test_jobs_work.py::test_of_intents_queued_in_one_millisecond_redrive_sends_the_unresolved_one",
        ),
    ),
    Mutant(
        "archive-trims-what-is-younger-than-keep",
        "worker/cancelq_worker/archive/archiver.py",
        "keep_from = min(bound, cutoff, key=order_of)",
        "keep_from = bound",
        "a segment that began before --keep is trimmed to its end, so that events of the last minutes leave "
        "the stream under those who read it",
        ("tests/integration/test_archive.py::test_a_segment_that_holds_old_and_young_is_trimmed_up_to_the_young",),
    ),
    Mutant(
        "results-are-kept-for-three-quarters-of-an-hour",
        "worker/cancelq_worker/wiring.py",
        "self.settings.results_keep_days * 86_400_000",
        "self.settings.results_keep_days * 86_400",
        "days taken for seconds: results and inbox entries older than 43 minutes are dropped instead of after 30 days",
        (
            "tests/integration/test_archive.py::TestWorkersTrim::test_a_worker_keeps_results_for_as_many_days_as_it_is_told",
        ),
    ),
    Mutant(
        "results-trimmed-before-the-first-archive-run",
        "worker/cancelq_worker/wiring.py",
        'await self.client.set(lane.lane.key("archived"), NOTHING_ARCHIVED, nx=True)',
        "pass",
        "with archive_dir set, but no archive run yet, results are trimmed by age and stand in no archive",
        (
            "tests/integration/test_archive.py::TestWorkersTrim::test_a_worker_that_knows_an_archive_keeps_all_results_until_its_first_run",
        ),
    ),
    Mutant(
        "flatten-job-ends-well-with-open-orders",
        "worker/cancelq_worker/jobs/table.py",
        "        if not report.empty:\n",
        "        if False:\n",
        "the kill switch as an RQ job is finished although orders are open, and nobody looks",
        ("tests/integration/test_jobs_work.py::test_flatten_fails_as_a_job_where_an_order_stays_open",),
    ),
    Mutant(
        "audit-passes-an-id-that-was-carried-out-twice",
        "worker/cancelq_worker/audit/books.py",
        "        self._judge_repeats(finals)\n",
        "",
        "an id that was queued again within dedup_hours and settled a second time is proven by the audit",
        (
            "tests/integration/test_audit_tampering.py::test_an_id_that_is_carried_out_again_before_it_is_forgotten_is_named",
        ),
    ),
    Mutant(
        "audit-misses-what-was-lost-once-results-were-trimmed",
        "worker/cancelq_worker/audit/books.py",
        "elif asked.queued_us <= self._horizon.results_us and not self._horizon.whole:",
        "elif not self._horizon.whole:",
        "from the first trimming on the audit names no lost intent any more: all of them lie 'beyond' the results",
        ("tests/integration/test_audit_tampering.py::test_an_event_that_was_deleted_from_the_stream_is_named",),
    ),
    Mutant(
        "audit-passes-a-sweep-that-left-orders-open",
        "worker/cancelq_worker/audit/rules.py",
        'if swept and told.numbers.get("open_orders") != 0:',
        'if swept and told.numbers.get("open_orders") is None:',
        "a `cancelled` of a pair or an account with orders still open is proven by the audit",
        ("tests/integration/test_audit_tampering.py::test_an_event_that_breaks_a_rule_is_named",),
    ),
    Mutant(
        "rotated-secrets-are-not-concealed",
        "worker/cancelq_worker/rq_worker.py",
        "        redaction.conceal(fresh.secrets())\n",
        "",
        "after HUP the new key and secret stand in logs and tracebacks wherever somebody quotes them",
        ("tests/integration/test_rq_worker.py::test_a_secret_that_came_with_hup_is_blanked_in_what_is_logged",),
    ),
    Mutant(
        "worker-does-not-close-its-memory",
        "worker/cancelq_worker/rq_worker.py",
        "        keep_memory_private()\n",
        "",
        "keys are written into core files, and every process of the worker's user reads them in /proc",
        ("tests/integration/test_rq_worker.py::test_a_worker_that_serves_writes_no_core_file",),
    ),
    Mutant(
        "doctor-believes-any-certificate",
        "worker/cancelq_worker/doctor/keys.py",
        'door = Door(base_url, verify=base_url.startswith("https:"))',
        "door = Door(base_url, verify=False)",
        "`cancelq doctor` gives key, passphrase and signature to anybody on the way, and believes what he "
        "says of the key",
        ("tests/integration/test_doctor_keys.py::test_a_venue_whose_certificate_nobody_vouches_for_is_shown_no_key",),
    ),
    Mutant(
        "rights-of-a-key-asked-once",
        "worker/cancelq_worker/key_watch.py",
        "await asyncio.sleep(EVERY_S * random.uniform(0.9, 1.1))",
        "return",
        "a right to withdraw that is added to a key later is not noticed until the worker starts again",
        ("tests/integration/test_key_watch.py::test_a_right_to_withdraw_that_is_added_later_is_noticed",),
    ),
    Mutant(
        "term-kills-what-is-ending",
        "worker/cancelq_worker/rq_worker.py",
        "signal.signal(number, handler if number is signal.SIGHUP else signal.SIG_IGN)",
        "signal.signal(number, handler)",
        "TERM while a worker ends by itself hides why, and leaves its registration behind",
        ("tests/integration/test_rq_worker.py::test_a_wish_to_end_leaves_a_worker_that_ends_by_itself_its_exit_code",),
    ),
)
