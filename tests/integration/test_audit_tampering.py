"""Whatever somebody changes in the stream or in the archive is found, and named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from cancelq_worker.archive import manifest, segments, stream
from tests.integration.told import BEGUN_MS, MAIN, archived, audited, entry_id, event, fill, named

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
