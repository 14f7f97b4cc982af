"""`doctor` finds what is wrong with keys and clocks, at simulated venues, and asks each by reads alone."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import trustme

from cancelq_worker.doctor.findings import Level, Report
from cancelq_worker.exits import Exit
from cancelq_worker.simulator.app import serve
from cancelq_worker.simulator.faults import Fault
from cancelq_worker.simulator.orders import Right
from cancelq_worker.simulator.simulator import DEMO_KEY, DEMO_PASSPHRASE, DEMO_SECRET, Simulator
from cancelq_worker.trips import connect
from tests.integration.ward import at, examined, the

pytestmark = pytest.mark.one_server("redis7")

VENUES = ("bitget", "bybit", "bingx")


@dataclass
class Venues:
    """The simulated venues, and settings with an account at each of some."""

    simulator: Simulator
    base_url: str

    def env(self, *venues: str, **more: str) -> dict[str, str]:
        env: dict[str, str] = {}
        for venue in venues or VENUES:
            account = f"CANCELQ_ACCOUNTS__{venue.upper()}__MAIN__"
            env |= {f"{account}BASE_URL": self.base_url, f"{account}API_KEY": DEMO_KEY}
            env |= {f"{account}API_SECRET": DEMO_SECRET}
            if venue == "bitget":
                env |= {f"{account}PASSPHRASE": DEMO_PASSPHRASE}
            env |= {f"{account}{name}": value for name, value in more.items()}
        return env

    def give(self, rights: Iterable[Right] = (Right.trade,), **more: object) -> None:
        """The keys have these rights, and are bound to an address."""
        for account in list(self.simulator.core.accounts.values()):
            changed = replace(account, rights=frozenset(rights), addresses=("203.0.113.7",))
            self.simulator.add_account(replace(changed, **more))  # type: ignore[arg-type]


@asynccontextmanager
async def venues() -> AsyncIterator[Venues]:
    simulator = Simulator()
    async with serve(simulator) as served:
        made = Venues(simulator, served.base_url)
        made.give()
        yield made


async def asked(redis_url: str, env: dict[str, str]) -> Report:
    return await examined(redis_url, env, offline=False)


def levels(report: Report, check: str) -> dict[str, Level]:
    return {one.subject.partition(":")[0]: one.level for one in report.findings if one.check == check}


def of_keys(report: Report, level: Level) -> dict[str, str]:
    return {name: told for name, told in at(report, level).items() if name.startswith(("key.", "venue."))}


async def test_keys_with_nothing_wrong_are_asked_by_reads_alone(redis_url: str) -> None:
    async with venues() as desk:
        report = await asked(redis_url, desk.env())
        assert of_keys(report, Level.fail) == of_keys(report, Level.warn) == of_keys(report, Level.unknown) == {}
        assert levels(report, "key.withdraw") == dict.fromkeys(VENUES, Level.ok)
        calls = desk.simulator.calls().entries
        assert {call["method"] for call in calls} == {"GET"}
        assert sorted({call["endpoint"] for call in calls}) == ["apiPermissions", "info", "query-api", "time"]
        assert DEMO_SECRET not in str(report)


async def test_a_key_that_may_withdraw_is_refused_at_every_venue(redis_url: str) -> None:
    async with venues() as desk:
        desk.give([Right.trade, Right.withdraw])
        report = await asked(redis_url, desk.env())
        assert levels(report, "key.withdraw") == dict.fromkeys(VENUES, Level.fail)
        assert report.exit is Exit.KEY_REFUSED
        allowed = await asked(redis_url, desk.env("bybit", "bingx", ALLOW_WITHDRAW_KEY="true"))
        assert levels(allowed, "key.withdraw") == dict.fromkeys(("bybit", "bingx"), Level.warn)


async def test_a_key_that_may_not_trade_cannot_cancel(redis_url: str) -> None:
    async with venues() as desk:
        desk.give([])
        report = await asked(redis_url, desk.env())
        assert levels(report, "key.trade") == dict.fromkeys(VENUES, Level.fail)
        assert report.exit is Exit.KEY_REFUSED


async def test_a_key_that_is_bound_to_no_address_and_one_that_ends_soon(redis_url: str) -> None:
    async with venues() as desk:
        desk.give(addresses=(), expires_ms=int((time.time() + 3 * 86_400) * 1000))
        report = await asked(redis_url, desk.env())
        assert levels(report, "key.addresses") == dict.fromkeys(VENUES, Level.warn)
        assert levels(report, "key.expiry") == {"bybit": Level.warn}, "the only one that tells"
        assert report.exit is not Exit.KEY_REFUSED


async def test_two_keys_of_one_account_are_two_lanes_on_one_budget(redis_url: str) -> None:
    async with venues() as desk:
        env = desk.env("bitget", "bybit")
        assert levels(await asked(redis_url, env), "key.account") == dict.fromkeys(("bitget", "bybit"), Level.ok)
        for account in list(desk.simulator.core.accounts.values()):
            desk.simulator.add_account(
                replace(account, key="another", uid="555" if account.venue == "bybit" else account.uid)
            )
        env |= {name.replace("MAIN", "SECOND"): value.replace(DEMO_KEY, "another") for name, value in env.items()}
        report = await asked(redis_url, env)
        found = {one.subject: one for one in report.findings if one.check == "key.account"}
        assert {lane: one.level for lane, one in found.items()} == {
            "bitget:main": Level.fail, "bitget:second": Level.fail, "bybit:main": Level.ok, "bybit:second": Level.ok,
        }  # fmt: skip
        assert "bitget:second" in str(found["bitget:main"].facts)
        assert report.exit is Exit.CONFIGURATION


async def test_a_key_that_the_venue_refuses(redis_url: str) -> None:
    async with venues() as desk:
        report = await asked(redis_url, desk.env(API_KEY="of-nobody"))
        assert levels(report, "key.valid") == dict.fromkeys(VENUES, Level.fail)
        assert report.exit is Exit.KEY_REFUSED
        assert "of-nobody" not in str(report)


async def test_a_clock_that_is_wrong_is_told_and_does_not_fail_the_key(redis_url: str) -> None:
    async with venues() as desk:
        desk.simulator.configure({"clock_offset_ms": 90_000})
        report = await asked(redis_url, desk.env())
        assert levels(report, "venue.clock") == dict.fromkeys(VENUES, Level.warn)
        assert "NTP" in the(report, "venue.clock", "bitget").remedy
        assert 85_000 < the(report, "venue.clock", "bitget").facts["ahead_ms"] < 95_000
        assert levels(report, "key.valid") == dict.fromkeys(VENUES, Level.ok)


async def test_rights_in_the_other_form_and_a_venue_that_does_not_tell(redis_url: str) -> None:
    async with venues() as desk:
        desk.simulator.configure({"bingx_rights_bare": True})
        assert levels(await asked(redis_url, desk.env("bingx")), "key.withdraw") == {"bingx": Level.ok}
        desk.give(demo=True)
        demo = await asked(redis_url, desk.env("bybit", DEMO="true"))
        assert levels(demo, "key.valid") == {"bybit": Level.ok}
        assert levels(demo, "key.withdraw") == {"bybit": Level.unknown}
        assert "not told by the venue" in the(demo, "key.withdraw").told


async def test_an_answer_that_is_none_says_nothing_of_the_key(redis_url: str) -> None:
    async with venues() as desk:
        for kind in ("http_429", "html_200", "http_500"):
            desk.simulator.core.faults.clear()
            desk.simulator.add_fault(Fault(kind, endpoint="query-api", count=None))
            report = await asked(redis_url, desk.env("bybit"))
            assert levels(report, "key.valid") == {"bybit": Level.unknown}, kind
            assert "key.withdraw" not in at(report, Level.ok)


async def test_a_venue_that_refuses_the_address_is_told_so_and_asked_no_more(redis_url: str) -> None:
    async with venues() as desk:
        desk.simulator.add_fault(Fault("http:403", count=None))
        for venue in VENUES:
            report = await asked(redis_url, desk.env(venue))
            assert (the(report, "venue.clock").level, report.exit) == (Level.fail, Exit.UNREACHABLE)
            assert "refuses this address" in the(report, "venue.clock").told
            assert levels(report, "key.valid") == {venue: Level.unknown}
        assert len(desk.simulator.calls().entries) == len(VENUES)


async def test_a_venue_that_workers_wait_for_is_not_asked(redis_url: str) -> None:
    async with venues() as desk:
        client = connect(redis_url)
        until_ms = int(time.time() * 1000) + 300_000
        await client.hset("cancelq:{egress:here}:bybit-ip:note", "hold", f"{until_ms} 403 access too frequent")
        await client.aclose()
        report = await asked(redis_url, desk.env("bybit", "bingx") | {"CANCELQ_EGRESS": "here"})
        assert levels(report, "venue.clock") == {"bybit": Level.fail, "bingx": Level.ok}
        assert re.search(r"\(here\) for \d+ s more: 403 access too frequent", the(report, "venue.clock", "bybit").told)
        assert levels(report, "key.valid") == {"bybit": Level.unknown, "bingx": Level.ok}
        assert {call["venue"] for call in desk.simulator.calls().entries} == {"bingx"}


async def test_a_venue_that_is_away_or_stands_still_is_told_in_time(redis_url: str) -> None:
    async with venues() as desk:
        away = await asked(redis_url, desk.env("bitget", BASE_URL="http://127.0.0.1:1"))
        assert (the(away, "venue.clock").level, away.exit) == (Level.fail, Exit.UNREACHABLE)
        assert the(away, "key.valid").level is Level.unknown
        silent = await asyncio.start_server(lambda *_: asyncio.sleep(60), "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        begun = time.monotonic()
        report = await asked(redis_url, desk.env(BASE_URL=f"http://127.0.0.1:{port}"))
        assert time.monotonic() - begun < 15
        assert report.exit is Exit.UNREACHABLE
        silent.close()


async def test_without_keys_or_offline_nothing_is_asked_and_nothing_fails(redis_url: str) -> None:
    async with venues() as desk:
        env = desk.env()
        bare = {
            name: value for name, value in env.items() if not name.endswith(("API_KEY", "API_SECRET", "PASSPHRASE"))
        }
        report = await asked(redis_url, bare)
        assert levels(report, "key.valid") == dict.fromkeys(VENUES, Level.unknown)
        assert "no key here" in the(report, "key.valid", "bybit:main").told
        half = await asked(redis_url, {name: value for name, value in env.items() if not name.endswith("PASSPHRASE")})
        assert levels(half, "key.valid")["bitget"] is Level.unknown
        offline = await examined(redis_url, env)
        assert levels(offline, "key.valid") == dict.fromkeys(VENUES, Level.unknown)
        assert {call["endpoint"] for call in desk.simulator.calls().entries} <= {"time", "query-api", "apiPermissions"}


async def test_a_venue_whose_certificate_nobody_vouches_for_is_shown_no_key(redis_url: str) -> None:
    heard = asyncio.Event()

    async def hear(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with venues() as desk, await asyncio.start_server(hear, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        report = await asked(redis_url, desk.env(BASE_URL=f"https://127.0.0.1:{port}"))
        assert levels(report, "venue.clock") == dict.fromkeys(VENUES, Level.fail)
        assert levels(report, "key.valid") == dict.fromkeys(VENUES, Level.unknown)
        assert not heard.is_set()
