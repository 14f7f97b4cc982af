"""No secret is left behind by a run in which everything fails; and the search finds what would be.

The long version is `make canaries`; both are `ops/canaries/`.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import sys
import zlib
from collections import Counter
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as parquet  # type: ignore[import-untyped]
import pytest

from cancelq.contract import Lane
from cancelq_worker.embedded import EmbeddedServer
from cancelq_worker.repeating import secrets_of_call
from cancelq_worker.settings import Settings
from cancelq_worker.venues.registry import open_venue
from ops.canaries import Artefact, Canary, make_canaries, search, spellings
from ops.canaries.echo import SIGN_OF_LOGIN, SIGNED
from ops.canaries.left_behind import Running, Watch, left_in_archives, left_in_redis, left_in_server_files
from ops.canaries.scene import run
from ops.canaries.searching import files_below
from ops.chaos.world import client, until

pytestmark = [pytest.mark.timeout(300)]

PLANTED = make_canaries(random.Random(1), ("planted pass",))["planted pass"]
FORMS = spellings(PLANTED.value)
#: Between two spellings; none of an encoding's characters.
GAP = b"\n\x01\n"


def everything() -> bytes:
    """The secret in every form, and a part of it, each with other words around it."""
    around = random.Random(2)
    told = [around.randbytes(3) + spelt for forms in FORMS.values() for spelt in sorted(forms)]
    return GAP.join([*told, PLANTED.value.encode()[5:17]])


def forms_found(artefacts: list[Artefact]) -> Counter[str]:
    return Counter(find.form for find in search(artefacts, [PLANTED]))


class TestTheSearch:
    @pytest.mark.parametrize("form", FORMS)
    def test_each_spelling_is_found_by_itself(self, form: str) -> None:
        for spelt in FORMS[form]:
            assert form in forms_found([Artefact("file", "x", b"before" + spelt + b"after")])

    @pytest.mark.parametrize("before", range(6))
    @pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
    def test_base64_is_found_wherever_it_begins(self, before: int, encode: object) -> None:
        assert callable(encode)
        text = encode(b"x" * before + PLANTED.value.encode() + b"behind it").replace(b"\n", b"")
        assert {"base64", "base64url"} & set(forms_found([Artefact("file", "x", text)]))

    def test_every_part_of_twelve_characters_is_found(self) -> None:
        raw = PLANTED.value.encode()
        for at in range(len(raw) - 11):
            assert forms_found([Artefact("file", "x", b"said: " + raw[at : at + 12])])["part"] == 1

    def test_another_secret_of_the_same_kind_is_none(self) -> None:
        other = make_canaries(random.Random(2), ("planted pass",))["planted pass"]
        content = GAP.join(spelt for forms in spellings(other.value).values() for spelt in forms)
        assert not search([Artefact("file", "x", content)], [PLANTED])

    @pytest.mark.parametrize("signature", [base64.b64encode(random.Random(3).randbytes(32)).decode(), "0f" * 32])
    def test_signatures_are_found(self, signature: str) -> None:
        for form in ("plain", "percent", "json", "base64", "hex"):
            for spelt in spellings(signature)[form]:
                artefact = Artefact("log", "x", b'{"said": "bad ' + spelt + b'"}')
                assert {find.canary for find in search([artefact], [], [signature])} == {"a signature"}, form
        assert not search([artefact], [], ["1e" * 32])

    def test_a_find_does_not_repeat_the_secret(self) -> None:
        (find, *_) = search([Artefact("file", "x", PLANTED.value.encode())], [PLANTED])
        assert PLANTED.value not in f"{find} {find!r} {PLANTED!r}"


@pytest.mark.parametrize("venue", ["bitget", "bybit", "bingx"])
def test_what_is_signed_is_noted_on_its_way(venue: str) -> None:
    """Calls and logins, as the adapters make them: what would not be noted could not be searched for."""
    given = {"api_key": "a-key", "api_secret": "a-secret", "passphrase": "a-passphrase"}
    settings = Settings.model_validate({"accounts": {venue: {"main": given}}})
    adapter = open_venue(venue, settings.account(Lane(venue, "main")))
    signed = adapter.sign(adapter.probe_request(), 1_700_000_000_000)
    target = f"{signed.request.path}?{signed.request.query}"
    head = f"GET {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in signed.headers.items())
    assert noted(SIGNED, head) == set(secrets_of_call(signed)) - {"a-key", "a-passphrase"} != set()
    stream = adapter.stream
    assert stream is not None
    assert len(noted(SIGN_OF_LOGIN, "".join(stream.hello(1_700_000_000_000)))) == (venue != "bingx")
    address = stream.address("wss://host/market", "a-listen-key").partition("host")[2]
    assert noted(SIGNED, f"GET {address} HTTP/1.1") == ({"a-listen-key"} if venue == "bingx" else set())


def noted(pattern: re.Pattern[bytes], text: str) -> set[str]:
    return {group.decode() for groups in pattern.findall(text.encode()) for group in groups if group}


class TestEveryPlace:
    """Planted in each kind of thing that a run leaves behind, the secret is found there in every form."""

    def test_files(self, tmp_path: Path) -> None:
        (tmp_path / "below").mkdir()
        (tmp_path / "below" / "worker.log").write_bytes(everything())
        assert set(forms_found(list(files_below(tmp_path, "logs")))) == set(FORMS)

    def test_archives(self, tmp_path: Path) -> None:
        table = pa.table({"detail": [spelt.decode() for forms in FORMS.values() for spelt in forms]})
        parquet.write_table(table, tmp_path / "segment.parquet", compression="zstd")
        assert set(forms_found(list(left_in_archives(tmp_path)))) == set(FORMS)

    async def test_redis(self, tmp_path: Path) -> None:
        """Keys of each type, what RQ packs, the server's files and records, and commands that are only read."""
        planted = everything()
        folder = tmp_path / "server"
        folder.mkdir()
        server = EmbeddedServer(durable=True, data_dir=folder, config={"rdbcompression": "no"})
        await asyncio.to_thread(server.start)
        watch = Watch(server, list)
        looking = asyncio.ensure_future(watch.look())
        redis = client(server.url)
        try:
            await redis.set("string", planted)
            await redis.hset("hash", "field", planted)
            await redis.rpush("list", planted)
            await redis.sadd("set", planted)
            await redis.zadd("zset", {planted: 1})
            await redis.xadd("stream", {"detail": planted})
            await redis.set("packed", zlib.compress(planted))
            await redis.set("packed twice", base64.b64encode(zlib.compress(planted)))
            async with asyncio.timeout(20):
                while not any(artefact.kind == "commands to Redis" for artefact in watch.artefacts):
                    await redis.get(PLANTED.value)
            left = await left_in_redis(server)
        finally:
            looking.cancel()
            await redis.aclose()
            server.stop()
        for name in ("string", "hash", "list", "set", "zset", "stream"):
            assert set(forms_found([a for a in left if a.name == name])) == set(FORMS), name
        for name in ("packed", "packed twice"):
            unpacked = [a for a in left if a.name == name and a.kind == "Redis keys, unpacked"]
            assert set(forms_found(unpacked)) == set(FORMS), name
        files = list(left_in_server_files(folder))
        for part in (".aof", "dump.rdb"):
            assert set(forms_found([a for a in files if part in a.name])) == set(FORMS), part
        assert forms_found(watch.artefacts)

    async def test_processes_and_pages(self, tmp_path: Path) -> None:
        """A command line, an environment, and a page that a worker shows."""
        planted = everything().replace(b"\0", b"")

        async def show(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + planted)
            writer.close()

        shown = await asyncio.start_server(show, "127.0.0.1", 0)
        port = int(shown.sockets[0].getsockname()[1])
        program = "import sys; print('ready', flush=True); sys.stdin.read()"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, planted, env={"PLANTED": planted}, stdin=-1, stdout=-1
        )  # fmt: skip
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        watch = Watch(EmbeddedServer(), lambda: [Running(process.pid, "x", by_env=False, http_port=port)])
        looking = asyncio.ensure_future(watch.look())
        kinds = {"command lines", "environments", "health and metrics"}

        async def all_seen() -> bool:
            return kinds <= {artefact.kind for artefact in watch.artefacts}

        assert await until(all_seen, 20)
        looking.cancel()
        process.kill()
        await process.wait()
        shown.close()
        for kind in kinds:
            found = forms_found([artefact for artefact in watch.artefacts if artefact.kind == kind])
            assert set(found) == set(FORMS), kind


async def test_nothing_is_left_of_any_secret_whatever_fails(tmp_path: Path) -> None:
    """And all that could have brought one to light did happen."""
    outcome = await run(8, 3.0, tmp_path, thorough=False)
    assert not outcome.finds, "\n".join(map(str, outcome.finds))
    assert outcome.settled
    done = outcome.done
    assert sum(times for what, times in done.items() if what.startswith("echo: a key refused")) >= 3, done
    assert sum(times for what, times in done.items() if what.startswith("echo: ")) >= 6, done
    assert done["every lane held"] >= 1, done
    assert done["start: wrong password: exit 78"] == done["start: exposed file: exit 78"] == 1, done
    assert any(what.startswith("doctor with keys: exit") for what in done), done
    assert len(outcome.signatures) > 30
    assert {
        "command lines", "environments", "health and metrics", "commands to Redis", "Redis keys", "Redis files",
        "Redis' records", "logs and outputs", "archives",
    } <= set(outcome.sizes())  # fmt: skip
    assert all(isinstance(canary, Canary) for canary in outcome.canaries)
