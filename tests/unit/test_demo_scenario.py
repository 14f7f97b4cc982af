"""What the demo sends is complete, exact in number, and consistent with itself."""

from collections import Counter

import pytest

from cancelq.contract import Refused, read_entry
from cancelq_worker.demo.scenario import KINDS, LEAST, MOST, write_script
from cancelq_worker.demo.script import Ask, Producer, Script
from cancelq_worker.exits import CommandFailed, Exit


def all_asks(script: Script) -> list[Ask]:
    return [ask for asks in script.asks.values() for ask in asks]


@pytest.mark.parametrize("entries", [LEAST, LEAST + 1, 777, 5000])
def test_it_has_exactly_so_many_entries_and_all_kinds(entries: int) -> None:
    script = write_script(entries)
    assert script.size == entries
    assert {ask.kind for ask in all_asks(script)} == set(KINDS)
    assert len(KINDS) == len(set(KINDS))


@pytest.mark.parametrize("entries", [0, LEAST - 1, MOST + 1])
def test_another_number_is_refused_with_the_nearest_that_works(entries: int) -> None:
    with pytest.raises(CommandFailed) as refused:
        write_script(entries)
    assert refused.value.code == Exit.USAGE
    nearest = int(refused.value.remedy.rpartition(" ")[2])
    assert LEAST <= nearest <= MOST


def test_the_same_seed_writes_the_same() -> None:
    assert write_script(400, seed=7) == write_script(400, seed=7)
    assert write_script(400, seed=7) != write_script(400, seed=8)


def test_every_order_is_either_to_be_closed_or_to_be_spared() -> None:
    script = write_script(2000)
    closed = {position for ask in all_asks(script) for position in ask.orders}
    spared = {position for ask in all_asks(script) for position in ask.spared}
    assert not closed & spared
    assert closed | spared == set(range(len(script.orders)))
    assert sorted(script.made) == list(range(len(script.orders)))


def test_ids_are_unique_but_for_repeats_that_follow_their_first() -> None:
    script = write_script(2000)
    for asks in script.asks.values():
        seen: set[str] = set()
        for ask in asks:
            if ask.repeats:
                assert ask.fields["id"] in seen
            if ask.after:
                assert ask.after in seen
            seen.add(ask.fields.get("id", ""))
    given = Counter(ask.fields["id"] for ask in all_asks(script) if "id" in ask.fields and not ask.repeats)
    del given["1795228645342-12"]  # unusable on purpose
    assert set(given.values()) == {1}


def test_only_the_entries_meant_to_be_malformed_break_the_contract() -> None:
    for ask in all_asks(write_script(2000)):
        fields = dict(ask.fields)
        if ask.names is not None:
            fields["order_id"] = "1507863691180113920"
        read = read_entry("1-0", {name.encode(): value.encode() for name, value in fields.items()})
        # The wrong spelling of a pair is for the venue's adapter to refuse.
        meant = ask.kind == "malformed entry" and ask.fields.get("symbol") != "BTC-USDT"
        assert isinstance(read, Refused) == meant, (ask, read)


def test_only_who_sends_one_by_one_waits_for_outcomes() -> None:
    script = write_script(2000)
    assert all(not ask.after for who, asks in script.asks.items() if who is not Producer.hedge for ask in asks)
