"""Who an operator's act is told to be by."""

from __future__ import annotations

import os
import pwd

import pytest

from cancelq_worker.operate import default_actor

HOST = os.uname().nodename


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that names nobody, as cron and systemd leave it."""
    for name in ("USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("name", ["USER", "LOGNAME"])
def test_the_environment_says_who(nameless: pytest.MonkeyPatch, name: str) -> None:
    nameless.setenv(name, "anna")
    assert default_actor() == f"anna@{HOST}"


def test_without_it_the_accounts_of_the_machine_do(nameless: pytest.MonkeyPatch) -> None:
    account = pwd.getpwall()[0]
    nameless.setattr(os, "getuid", lambda: account.pw_uid)
    assert default_actor() == f"{account.pw_name}@{HOST}"


def test_whom_no_account_names_is_a_number(nameless: pytest.MonkeyPatch) -> None:
    nameless.setattr(os, "getuid", lambda: 4_000_000_001)
    assert default_actor() == f"4000000001@{HOST}"
