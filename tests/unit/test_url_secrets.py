"""A password in a Redis URL stays there, however the URL is broken: no error, traceback or remedy holds any of it."""

import traceback
from pathlib import Path

import pytest

from cancelq import Client
from cancelq.errors import UrlError
from cancelq_worker.cli import run
from cancelq_worker.exits import Exit
from cancelq_worker.settings import Settings
from cancelq_worker.settings_files import passwords_in

BROKEN = [
    "redis://:canary/pw@127.0.0.1:6379/0",
    "redis://:canary#pw@127.0.0.1:6379/0",
    "redis://:canary?pw@127.0.0.1:6379/0",
    "redis://user:canary[x@127.0.0.1:1/0",
    "redis://127.0.0.1:canary/0",
    "redis://u:canary@127.0.0.1:1/0?db=canary",
    "redis://u:canary@127.0.0.1:1/0?socket_timeout=canary",
    "redis://u:canary@127.0.0.1:1/0?canary=canary",
    "redis+cluster://u:canary@[::1/x",
    "redis+sentinel://u:can/canary@127.0.0.1:1/x?sentinel_password=canary",
    "http://u:canary@127.0.0.1:1/0",
    "canary",
]


@pytest.mark.parametrize("url", BROKEN)
@pytest.mark.parametrize("variable", ["CANCELQ_REDIS_URL", "CANCELQ_RQ_REDIS_URL"])
def test_a_command_tells_the_variable_and_nothing_of_it(
    url: str, variable: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--traceback", "jobs"], {variable: url}) == Exit.CONFIGURATION
    told = capsys.readouterr()
    assert variable in told.err
    assert "canary" not in told.out + told.err


@pytest.mark.parametrize("url", BROKEN)
def test_a_client_tells_nothing_of_it(url: str) -> None:
    with pytest.raises(UrlError) as caught:
        Client(url)
    shown = "".join(traceback.format_exception(caught.value, limit=0))
    assert "canary" not in f"{shown} {caught.value!r} {caught.value.__cause__}"


@pytest.mark.parametrize(
    ("url", "held"),
    [
        ("redis://127.0.0.1:6379/0", []),
        ("redis://reader@127.0.0.1:6379/0", []),
        ("redis://:p%40ss@127.0.0.1:6379/0", ["p%40ss", "p@ss"]),
        ("rediss://u:plain@a:1/0?ssl_password=other&db=3", ["plain", "other"]),
        ("redis+sentinel://u:plain@a:1,b:2/main?sentinel_password=an%2Bother", ["plain", "an%2Bother", "an+other"]),
        ("unix://u:plain@/run/redis.sock", ["plain"]),
        ("redis://[::1", []),
    ],
)
def test_the_passwords_of_a_url_are_known(url: str, held: list[str]) -> None:
    assert passwords_in(url) == held


def test_every_secret_of_the_settings_is_known_and_short_ones_are_left_alone() -> None:
    account = "CANCELQ_ACCOUNTS__BITGET__MAIN__"
    settings = Settings.load(
        None,
        {
            "CANCELQ_REDIS_URL": "redis://u:the-first%2F@127.0.0.1:1/0",
            "CANCELQ_RQ_REDIS_URL": "redis://u:the-second@127.0.0.1:1/0",
            f"{account}API_KEY": "the-third",
            f"{account}API_SECRET": "the-fourth",
            f"{account}PASSPHRASE": "short",
        },
    )
    assert set(settings.secrets()) == {"the-first%2F", "the-first/", "the-second", "the-third", "the-fourth"}


def test_a_traceback_that_is_asked_for_is_redacted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What looks like a secret is not in it, wherever the error came from: here it is a part of a file's name."""
    assert run(["--traceback", "--config", f"{tmp_path}/x?signature=canary", "status"], {}) == Exit.CONFIGURATION
    shown, _, _ = capsys.readouterr().err.partition("error: ")
    assert "Traceback" in shown
    assert "signature=[redacted]" in shown
    assert "canary" not in shown
