"""Whatever somebody changes in the stream or in the archive is found, and named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from cancelq_worker.archive import manifest, segments, stream
from cancelq_worker.audit.auditor import Question, audit_lane
from cancelq_worker.audit.sources import Reader
from tests.integration.told import BEGUN_MS, MAIN, SegmentReader, archived, audited, entry_id, event, fill, named

pytestmark = pytest.mark.one_server


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def lane(client: Redis, tmp_path: Path) -> Path:
    """Thirty intents in three segments, ten more in the stream alone; the archive's folder."""
    fill(client, 30)
    archived(client, tmp_path)
    fill(client, 10, begin=30)
    return tmp_path


def files(archive: Path) -> list[Path]:
    return sorted(manifest.folder_of(archive, MAIN).glob("*.parquet"))


def lines(archive: Path) -> list[bytes]:
    return (manifest.folder_of(archive, MAIN) / manifest.NAME).read_bytes().splitlines(keepends=True)


def write_lines(archive: Path, kept: list[bytes]) -> None:
    (manifest.folder_of(archive, MAIN) / manifest.NAME).write_bytes(b"".join(kept))


def trim_archived(client: Redis, archive: Path) -> None:
    archived(client, archive, trim=True)
    assert client.xlen(MAIN.results) == 0


def test_untouched_it_is_proven(client: Redis, lane: Path) -> None:
    for folder in (None, lane):
        found = audited(client, folder)
        assert named(found) == []
        assert (found.numbers.intents, found.numbers.proven, found.events) == (40, 40, 40)
    trim_archived(client, lane)
    assert named(audited(client, lane)) == []


@pytest.mark.parametrize("at", [10, 400, 2000, -10])
def test_a_flipped_byte_names_its_segment(client: Redis, lane: Path, at: int) -> None:
    path = files(lane)[1]
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    found = named(audited(client, lane))
    assert any(path.name in line and "SHA-256" in line for line in found)
    others = [file.name for file in files(lane) if file != path]
    assert not any(other in line for line in found for other in others)


def test_a_row_that_is_dropped_is_named(client: Redis, lane: Path) -> None:
    path = files(lane)[1]
    rows = [entry for entry in segments.read(path) if entry.entry_id != entry_id(14)]
    path.unlink()
    segments.write(path, rows)
    found = named(audited(client, lane))
    assert f"archive results {entry_id(14)} i-14: the stream holds it, and the archive lacks it" in found
    assert any("9 events can be read, its line says 10" in line for line in found)


def test_a_row_that_is_dropped_after_the_stream_was_trimmed_is_missed(client: Redis, lane: Path) -> None:
    trim_archived(client, lane)
    path = files(lane)[1]
    rows = [entry for entry in segments.read(path) if entry.entry_id != entry_id(14)]
    path.unlink()
    segments.write(path, rows)
    found = named(audited(client, lane))
    assert any(line.startswith("intent inbox") and "i-14: it has no final event" in line for line in found)
    assert any(path.name in line and "SHA-256" in line for line in found)


def test_swapped_segments_are_each_named_as_the_other(client: Redis, lane: Path) -> None:
    one, other = files(lane)[:2]
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    found = named(audited(client, lane))
    assert any(one.name in line and "it is that of segment 2" in line for line in found)
    assert any(other.name in line and "it is that of segment 1" in line for line in found)


def test_a_manifest_line_that_is_gone_breaks_the_chain_there(client: Redis, lane: Path) -> None:
    kept = lines(lane)
    write_lines(lane, [kept[0], kept[2]])
    found = named(audited(client, lane))
    assert any("manifest.ndjson line 2" in line and "the line of segment 2 is missing" in line for line in found)
    assert any(files(lane)[1].name in line and "no line of the manifest names this file" in line for line in found)


def test_an_end_that_is_cut_off_is_seen_by_what_the_lane_was_told(client: Redis, lane: Path) -> None:
    trim_archived(client, lane)
    write_lines(lane, lines(lane)[:-1])
    files(lane)[-1].unlink()
    found = named(audited(client, lane))
    assert any("the lane was told of segment 4" in line for line in found)


def test_lines_in_another_order_are_named(client: Redis, lane: Path) -> None:
    one, two, three = lines(lane)
    write_lines(lane, [one, three, two])
    assert any("manifest.ndjson line 2" in line for line in named(audited(client, lane)))
    assert any("manifest.ndjson line 3" in line for line in named(audited(client, lane)))


def test_a_line_that_was_changed_breaks_the_chain_behind_it(client: Redis, lane: Path) -> None:
    one, two, three = lines(lane)
    forged = json.loads(two)
    forged["written_us"] += 1
    write_lines(lane, [one, json.dumps(forged, separators=(",", ":")).encode() + b"\n", three])
    assert any("line 3" in line and "the chain is broken here" in line for line in named(audited(client, lane)))


def test_an_event_that_was_changed_in_the_stream_is_named_with_its_field(client: Redis, lane: Path) -> None:
    """An entry cannot be changed in place, so the stream is made anew with one that differs."""
    rows = list(stream.raw_entries(client, MAIN.results, "-", "+"))
    client.delete(MAIN.results)
    for id_, flat in rows:
        changed = [b"filled" if id_.decode() == entry_id(7) and word == b"cancelled" else word for word in flat]
        client.execute_command("XADD", MAIN.results, id_, *changed)  # type: ignore[no-untyped-call]
    found = named(audited(client, lane))
    assert any(entry_id(7) in line and "status is 'filled' in the stream" in line for line in found)


@pytest.mark.parametrize("n", [7, 35])
def test_an_event_that_was_deleted_from_the_stream_is_named(client: Redis, lane: Path, n: int) -> None:
    client.xdel(MAIN.results, entry_id(n))
    found = named(audited(client, lane))
    assert any(line.startswith("stream results") and entry_id(n) in line for line in found)
    alone = named(audited(client))
    assert any(f"i-{n}: it has no final event" in line for line in alone)


def test_an_event_deleted_before_it_was_archived_is_counted(client: Redis, lane: Path) -> None:
    client.xdel(MAIN.results, entry_id(39))
    archived(client, lane)
    found = named(audited(client, lane))
    assert any("1 entries are neither in the stream nor in the archive" in line for line in found)
    assert any("i-39: it has no final event" in line for line in found)


def test_a_second_final_event_is_named_with_the_first(client: Redis, lane: Path) -> None:
    added = client.xadd(MAIN.results, event(7, status="filled"))
    assert isinstance(added, bytes)
    (line,) = named(audited(client, lane))
    assert added.decode() in line
    assert f"a second final event (filled); the first is {entry_id(7)} (cancelled)" in line


def test_an_event_nobody_asked_for_is_named(client: Redis, lane: Path) -> None:
    client.xadd(MAIN.results, event(50))
    (line,) = named(audited(client, lane))
    assert "i-50: nobody asked for it" in line


WRONG = [
    ({"final": "0"}, "final is '0' at status cancelled"),
    ({"evidence": "reply"}, "cancelled rests on reply"),
    ({"attempt": "0"}, "nothing was sent (attempt 0), but it has"),
    ({"batch_id": "b-1"}, "batch b-1: 2 orders in a call of 1"),
    ({"status": "lost"}, "its status is 'lost', which is none"),
    ({"sent_us": "1"}, "sent_us lies"),
    ({"settled_us": "9999999999999999"}, "settled_us lies after"),
    ({"account": "other"}, "not of this lane"),
    ({"symbol": "ETHUSDT"}, "its symbol is 'ETHUSDT', asked was 'BTCUSDT'"),
    ({"order_id": "77"}, "its order_id is '77', asked was '1000000000000000003'"),
    ({"status": "expired", "evidence": "local"}, "expired after 1 attempts"),
    ({"status": "revoked", "evidence": "local"}, "revoked after 1 attempts"),
    ({"status": "duplicate", "evidence": "local"}, "duplicate after 1 attempts"),
    ({"status": "not_found", "evidence": "reply"}, "not_found rests on reply"),
    ({"status": "not_found", "evidence": "stream"}, "not_found rests on stream"),
    ({"status": "rejected", "evidence": "stream"}, "rejected rests on stream"),
    ({"scope": "symbol"}, "cancelled, but open_orders is missing"),
    ({"scope": "account", "open_orders": "1"}, "cancelled, but open_orders is 1"),
    ({"batch_size": "0"}, "batch_size is 0"),
    ({"status": "expired", "attempt": "0"}, "expired rests on query"),
    ({"status": "accepted", "final": "0", "evidence": "local"}, "accepted rests on local"),
    ({"status": "resolved", "final": "0", "outcome": "unresolved"}, "resolved, but its outcome is 'unresolved'"),
    ({"answered_us": str((BEGUN_MS + 30) * 1000 + 1999)}, "answered_us lies 1 µs before sent_us"),
]


@pytest.mark.parametrize(("other", "says"), WRONG)
def test_an_event_that_breaks_a_rule_is_named(client: Redis, other: dict[str, Any], says: str) -> None:
    fill(client, 4)
    client.delete(MAIN.results)
    for n in range(3):
        client.xadd(MAIN.results, event(n), entry_id(n))
    client.xadd(MAIN.results, event(3, **other), entry_id(3))
    found = named(audited(client))
    assert any(entry_id(3) in line and says in line for line in found), found


OPERATOR: dict[str, Any] = {"id": "op-1", "status": "operator", "final": "0", "evidence": "local", "actor": "ann"}
LACKING: list[tuple[str, dict[str, Any], str]] = [
    ("queued_us", {}, "queued_us is missing"),
    ("attempt", {}, "attempt is missing"),
    ("settled_us", {}, "settled_us is missing"),
    ("sent_us", {}, "answered_us without sent_us"),
    ("batch_id", {}, "it was sent, but batch_id is missing"),
    ("batch_id", {"status": "unresolved"}, "it was sent, but batch_id is missing"),
    ("answered_us", {"status": "accepted", "final": "0", "evidence": "reply"}, "accepted without an answer"),
    ("act", {**OPERATOR, "act": "pause"}, "an operator's event needs an id op-…, act and actor"),
]


@pytest.mark.parametrize(("lacks", "other", "says"), LACKING)
def test_an_event_that_lacks_what_belongs_to_it_is_named(
    client: Redis, lacks: str, other: dict[str, Any], says: str
) -> None:
    fill(client, 1)
    client.delete(MAIN.results)
    told = event(0, **other)
    del told[lacks]
    client.xadd(MAIN.results, told, entry_id(0))
    found = named(audited(client))
    assert any(entry_id(0) in line and says in line for line in found), found


def test_an_event_with_a_field_given_twice_is_named(client: Redis) -> None:
    fill(client, 1)
    client.delete(MAIN.results)
    words = [word for pair in event(0).items() for word in pair]
    client.execute_command("XADD", MAIN.results, entry_id(0), "status", "filled", *words)  # type: ignore[no-untyped-call]
    assert any(entry_id(0) in line and "a field is given twice" in line for line in named(audited(client)))


def test_an_event_of_before_the_first_entry_of_a_whole_inbox_is_named(client: Redis) -> None:
    fill(client, 2)
    client.xadd(MAIN.results, event(-1))
    (line,) = named(audited(client))
    assert "i--1: nobody asked for it" in line


def test_an_event_on_the_way_that_nobody_asked_for_is_named(client: Redis) -> None:
    fill(client, 1)
    client.xadd(MAIN.results, event(5, status="accepted", final="0", evidence="reply"))
    (line,) = named(audited(client))
    assert "i-5: nobody asked for it" in line


@pytest.mark.parametrize(("name", "asked"), [("priority", "urgent"), ("x_desk", "7")])
def test_an_outcome_that_does_not_repeat_what_was_asked_is_named(client: Redis, name: str, asked: str) -> None:
    told = event(0)
    fields: dict[Any, Any] = {"id": "i-0", "symbol": "BTCUSDT", "order_id": told["order_id"], name: asked}
    client.xadd(MAIN.inbox, fields, f"{BEGUN_MS}-0")
    client.xadd(MAIN.results, told, entry_id(0))
    (line,) = named(audited(client))
    assert f"its {name} is {told.get(name, 'missing')!r}, asked was {asked!r}" in line


def test_one_entry_with_an_outcome_and_a_duplicate_is_named(client: Redis) -> None:
    fill(client, 1)
    told = event(0, status="duplicate", final="0", evidence="local", attempt="0")
    of_a_call = ("endpoint", "batch_id", "batch_size", "taken_us", "sent_us", "answered_us")
    client.xadd(MAIN.results, {name: value for name, value in told.items() if name not in of_a_call})
    (line,) = named(audited(client))
    assert "i-0: 1 entries have 2 answers" in line


def test_two_events_that_tell_otherwise_of_their_call_are_named(client: Redis) -> None:
    fill(client, 2)
    client.delete(MAIN.results)
    call: dict[str, Any] = {"batch_id": "b-0", "batch_size": "2", "taken_us": event(1)["taken_us"]}
    call["sent_us"] = event(1)["sent_us"]
    client.xadd(MAIN.results, event(0, **call, answered_us=call["sent_us"], settled_us=call["sent_us"]), entry_id(1))
    client.xadd(MAIN.results, event(1, **call, endpoint="POST /other"), f"{entry_id(1)[:-2]}-1")
    (line,) = named(audited(client))
    assert f"endpoint is POST /other, at {entry_id(1)} it is POST /cancel" in line


def test_one_client_id_on_two_pairs_is_two_orders_of_a_call(client: Redis) -> None:
    at_us = BEGUN_MS * 1000
    times = {name: event(0)[name] for name in ("queued_us", "taken_us", "sent_us", "answered_us", "settled_us")}
    for n, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
        asked: dict[Any, Any] = {"id": f"i-{n}", "symbol": symbol, "client_order_id": "mine"}
        client.xadd(MAIN.inbox, asked, f"{BEGUN_MS}-{n}")
        told = event(n, **{**times, **asked, "queued_us": str(at_us)}, batch_id="b-0")
        del told["order_id"]
        client.xadd(MAIN.results, told, f"{entry_id(0)[:-2]}-{n}")
    (line,) = named(audited(client))
    assert "batch b-0: 2 orders in a call of 1" in line


def test_an_intent_that_is_not_due_yet_is_open_and_not_lost(client: Redis) -> None:
    due_ms = BEGUN_MS + 8 * 86_400_000
    asked: dict[Any, Any] = {"id": "i-0", "symbol": "BTCUSDT", "order_id": "1", "not_before_ms": str(due_ms)}
    client.xadd(MAIN.inbox, asked, f"{BEGUN_MS}-0")
    fill(client, 1, begin=1)
    found = audited(client)
    assert (named(found), found.numbers.open_count) == ([], 1)


def test_an_entry_deleted_from_the_midst_of_the_inbox_is_named(client: Redis) -> None:
    fill(client, 3)
    client.xdel(MAIN.inbox, f"{BEGUN_MS + 10}-0")
    found = named(audited(client))
    assert any(line.startswith(f"stream inbox {BEGUN_MS + 10}-0") and "XDEL" in line for line in found)


def test_what_only_an_unreadable_segment_holds_is_not_called_lost(client: Redis, lane: Path) -> None:
    trim_archived(client, lane)
    path = files(lane)[1]
    path.write_bytes(b"nothing")
    found = named(audited(client, lane))
    assert any(path.name in line for line in found)
    assert not any("it has no final event" in line for line in found)


def test_an_audit_up_to_a_moment_leaves_that_moment_to_the_next(client: Redis) -> None:
    fill(client, 3)
    until = audit_lane(client, MAIN, Question(to_us=(BEGUN_MS + 20) * 1000))
    since = audit_lane(client, MAIN, Question(from_us=(BEGUN_MS + 20) * 1000))
    assert (until.numbers.intents, since.numbers.intents) == (2, 1)


def test_an_event_after_the_end_is_named(client: Redis) -> None:
    fill(client, 1)
    way: dict[str, Any] = {"status": "retrying", "final": "0", "evidence": "reply"}
    client.xadd(MAIN.results, event(0, **way, attempt="2"))
    (line,) = named(audited(client))
    assert f"retrying after its final event {entry_id(0)}" in line


def test_an_attempt_that_falls_is_named(client: Redis) -> None:
    fill(client, 2)
    client.delete(MAIN.results)
    way: dict[str, Any] = {"status": "retrying", "final": "0", "evidence": "reply"}
    client.xadd(MAIN.results, event(0), entry_id(0))
    client.xadd(MAIN.results, event(1, **way, attempt="2"), f"{entry_id(1)[:-2]}-0")
    client.xadd(MAIN.results, event(1), f"{entry_id(1)[:-2]}-1")
    (line,) = named(audited(client))
    assert "i-1: its attempt is 1, after 2 before" in line


def test_a_resolved_event_needs_an_unresolved_one(client: Redis) -> None:
    fill(client, 2)
    told: dict[str, Any] = {"status": "resolved", "final": "0", "outcome": "cancelled"}
    added = client.xadd(MAIN.results, event(1, **told))
    assert isinstance(added, bytes)
    (line,) = named(audited(client))
    assert f"{added.decode()} i-1: resolved, but it never was unresolved" in line


GUARD_EVENT: dict[Any, Any] = {
    "v": "1", "id": "op-guard-1-1", "venue": "bitget", "account": "main", "status": "operator", "final": "0",
    "evidence": "local", "act": "guard", "actor": "guard", "settled_us": "1763690000000000",
    "detail": "the deadline was missed by 5 ms: flattening the lane, asked as guard-1-order, guard-1-stop",
}  # fmt: skip


def test_what_the_dead_man_s_switch_asked_for_needs_its_event(client: Redis) -> None:
    """Its intents stand in no inbox, so that anybody could make some up: an event of its own must name them."""
    fill(client, 2)
    swept: dict[str, Any] = {"scope": "account", "open_orders": "0"}
    client.xadd(MAIN.results, event(3, id="guard-1-order", **swept), entry_id(3))
    (line,) = named(audited(client))
    assert "guard-1-order: nobody asked for it: no event of the dead man's switch names it" in line
    client.xadd(MAIN.results, GUARD_EVENT, entry_id(4))
    (line,) = named(audited(client))
    assert "guard-1-stop: it has no final event" in line
    client.xadd(MAIN.results, event(5, id="guard-1-stop", **swept))
    assert named(audited(client)) == []


def test_an_id_that_is_carried_out_again_before_it_is_forgotten_is_named(client: Redis) -> None:
    fill(client, 1)
    hour, day = 360_000, 24 * 360_000  # in the tens of milliseconds between two intents
    for n in (hour, hour + day + 1):
        again = event(n, id="i-0", order_id=event(0)["order_id"])
        client.xadd(MAIN.inbox, {name: again[name] for name in ("id", "symbol", "order_id")}, f"{BEGUN_MS + 10 * n}-0")
        client.xadd(MAIN.results, again, entry_id(n))
    (line,) = named(audited(client))
    assert f"{entry_id(hour)} i-0: a second final event of this id" in line
    assert f"the first is {entry_id(0)}" in line


FORGED: list[tuple[dict[str, Any], str]] = [
    ({"lane": "bitget:other"}, "segment 3 is of lane bitget:other"),
    ({"first": "9999999999999-0"}, "segment 3 ends before it begins"),
    ({"first": entry_id(0)}, f"segment 3 begins at {entry_id(0)}, not after {entry_id(19)}"),
    ({"before": 21}, "segment 3 counts 21 entries before it, which does not follow"),
    ({"file": "../elsewhere.parquet"}, "cannot be read as a segment's line"),
]


@pytest.mark.parametrize(("other", "says"), FORGED, ids=["lane", "end", "begin", "count", "file"])
def test_a_last_line_that_was_forged_is_named(client: Redis, lane: Path, other: dict[str, Any], says: str) -> None:
    *kept, last = lines(lane)
    forged = json.dumps({**json.loads(last), **other}, separators=(",", ":")).encode() + b"\n"
    write_lines(lane, [*kept, forged])
    found = named(audited(client, lane))
    assert any(says in line for line in found), found


def test_a_line_that_is_written_otherwise_is_none(client: Redis, lane: Path) -> None:
    *kept, last = lines(lane)
    write_lines(lane, [*kept, json.dumps(json.loads(last)).encode() + b"\n"])
    assert any("cannot be read as a segment's line" in line for line in named(audited(client, lane)))


def test_a_line_that_was_not_finished_is_told(client: Redis, lane: Path) -> None:
    write_lines(lane, [*lines(lane), b'{"v":1'])
    (line,) = named(audited(client, lane))
    assert "its last line is unfinished" in line


def test_a_file_that_is_gone_is_told_while_the_stream_still_holds_its_events(client: Redis, lane: Path) -> None:
    gone = files(lane)[1]
    gone.unlink()
    assert any(gone.name in line and "the file is missing" in line for line in named(audited(client, lane)))


def test_of_a_spoilt_file_the_stream_s_event_counts(client: Redis, lane: Path) -> None:
    path = files(lane)[1]
    rows = [
        replace(entry, fields={**entry.fields, "status": "filled"}) if entry.entry_id == entry_id(14) else entry
        for entry in segments.read(path)
    ]
    path.unlink()
    segments.write(path, rows)
    found = audited(client, lane)
    assert found.numbers.statuses == {"cancelled": 40}
    assert any(entry_id(14) in line and "not the same in the stream" in line for line in named(found))


def test_an_event_that_was_put_into_a_segment_is_named(client: Redis, lane: Path) -> None:
    path = files(lane)[1]
    rows = [*segments.read(path), *(entry for entry in segments.read(files(lane)[2]) if entry.entry_id == entry_id(25))]
    path.unlink()
    segments.write(path, rows)
    found = named(audited(client, lane))
    assert any(path.name in line and entry_id(25) in line and "none of this segment's" in line for line in found)


def test_an_audit_that_begins_within_a_segment_reads_its_rest(client: Redis, lane: Path) -> None:
    trim_archived(client, lane)
    reader = cast(Reader, SegmentReader())
    found = audit_lane(client, MAIN, Question(from_us=(BEGUN_MS + 150) * 1000, archive=lane, reader=reader))
    assert (named(found), found.numbers.proven) == ([], 25)
