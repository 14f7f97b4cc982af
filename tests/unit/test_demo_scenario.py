"""What the demo sends is complete, exact in number, and consistent with itself."""

from collections import Counter
from collections.abc import Iterator

import pytest

from cancelq.contract import Refused, read_entry
from cancelq_worker.demo.markets import MARKETS, Market
from cancelq_worker.demo.scenario import KINDS, LEAST, MOST, write_script
from cancelq_worker.demo.scenes import MALFORMED, MISSPELT
from cancelq_worker.demo.script import Ask, Part, Producer, Script
from cancelq_worker.exits import CommandFailed, Exit
from cancelq_worker.settings import Settings
from cancelq_worker.simulator import Simulator
from cancelq_worker.simulator.faults import Fault
from cancelq_worker.venues.port import Plan
from cancelq_worker.venues.registry import open_venue


def asks_of(part: Part) -> list[Ask]:
    return [ask for asks in part.asks.values() for ask in asks]


def all_asks(script: Script) -> list[Ask]:
    return [ask for part in script.parts for ask in asks_of(part)]


def as_sent(ask: Ask) -> dict[str, str]:
    return ask.fields if ask.names is None else {**ask.fields, "order_id": "1507863691180113920"}


def read_asks(script: Script) -> Iterator[tuple[Market, Ask, object]]:
    for part in script.parts:
        for ask in asks_of(part):
            fields = {name.encode(): value.encode() for name, value in as_sent(ask).items()}
            yield part.market, ask, read_entry("1-0", fields)


@pytest.mark.parametrize("entries", [LEAST, LEAST + 1, 777, 5000])
def test_it_has_exactly_so_many_entries_and_all_kinds(entries: int) -> None:
    script = write_script(entries)
    assert script.size == entries
    assert {ask.kind for ask in all_asks(script)} == set(KINDS)
    assert len(KINDS) == len(set(KINDS))


def test_each_venue_is_given_what_it_can_cancel_in_the_same_time() -> None:
    sizes = {str(part.lane): part.size for part in write_script(10_000).parts}
    assert sizes == {"bitget:main": 8_899, "bybit:main": 700, "bingx:main": 400, "bitget:second": 1}


def test_few_cancels_at_bingx_are_in_vain_however_many_there_are() -> None:
    script = write_script(30_000)
    (part,) = (part for part in script.parts if part.lane.venue == "bingx")
    assert part.size == 1_200
    vain = [
        ask
        for ask in asks_of(part)
        if any(part.orders[position].state not in ("live", "partially_filled") for position in ask.orders)
    ]
    assert len(vain) < 30


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
    for part in write_script(2000).parts:
        closed = {position for ask in asks_of(part) for position in ask.orders}
        spared = {position for ask in asks_of(part) for position in ask.spared}
        assert not closed & spared
        assert closed | spared == set(range(len(part.orders)))
        assert sorted(part.made) == list(range(len(part.orders)))


def test_a_whole_account_is_cancelled_only_where_nobody_else_trades() -> None:
    for part in write_script(2000).parts:
        scopes = [ask.fields.get("scope") for ask in asks_of(part)]
        assert "account" not in scopes or len(scopes) == 1


def test_ids_are_unique_but_for_repeats_that_follow_their_first() -> None:
    for part in write_script(2000).parts:
        for asks in part.asks.values():
            seen: set[str] = set()
            for ask in asks:
                if ask.repeats:
                    assert ask.fields["id"] in seen
                if ask.after:
                    assert ask.after in seen
                seen.add(ask.fields.get("id", ""))
        given = Counter(ask.fields["id"] for ask in asks_of(part) if "id" in ask.fields and not ask.repeats)
        del given["1795228645342-12"]  # unusable on purpose
        assert set(given.values()) <= {1}


def test_only_the_entries_meant_to_be_malformed_break_the_contract() -> None:
    for market, ask, read in read_asks(write_script(2000)):
        # A wrong spelling is for the venue's adapter to refuse.
        assert isinstance(read, Refused) == (ask.kind == MALFORMED), (market, ask, read)


def test_every_venue_takes_the_rest_but_what_is_misspelt_and_names_the_right_spelling() -> None:
    venues = {lane: open_venue(lane.venue, settings().account(lane)) for lane in settings().lanes}
    for market, ask, read in read_asks(write_script(2000)):
        if isinstance(read, Refused) or ask.fields.get("scope") == "revoke":
            continue
        told = venues[market.lane].admit({"scope": "order", **as_sent(ask)})
        if isinstance(told, Plan):
            assert ask.kind != MISSPELT, (market, ask)
        else:
            assert ask.kind == MISSPELT, (market, ask, told)
            assert told.field == "symbol"
            assert ask.says in told.detail


def test_only_who_sends_one_by_one_waits_for_outcomes() -> None:
    for part in write_script(2000).parts:
        assert all(not ask.after for who, asks in part.asks.items() if who is not Producer.hedge for ask in asks)


def test_every_trouble_is_one_the_simulator_knows_at_an_endpoint_that_is_there() -> None:
    rates = Simulator().core.limiter
    for trouble in write_script(LEAST).troubles:
        assert Fault(trouble.kind, endpoint=trouble.endpoint, count=trouble.count).count
        assert rates.rule(trouble.endpoint).limit


def settings() -> Settings:
    env: dict[str, str] = {}
    for market in MARKETS:
        account = f"CANCELQ_ACCOUNTS__{market.lane.venue}__{market.lane.account}__".upper()
        env |= {f"{account}API_KEY": market.key, f"{account}API_SECRET": market.secret}
        env |= {f"{account}PASSPHRASE": market.passphrase} if market.passphrase else {}
    return Settings.load(None, env)
