"""Every error a command can meet has words, a remedy and an exit code."""

import inspect

import pytest
import redis.exceptions

from cancelq import errors
from cancelq_worker.cli.border import failure_of
from cancelq_worker.exits import Exit
from cancelq_worker.settings import SettingsError

CAUSE = redis.exceptions.ConnectionError("refused")


def an_error(kind: type[errors.CancelqError]) -> errors.CancelqError:
    made: dict[type[errors.CancelqError], errors.CancelqError] = {
        errors.LaneError: errors.LaneError("no lane"),
        errors.UrlError: errors.UrlError("must begin with redis://"),
        errors.IntentError: errors.IntentError("symbol", "symbol: missing"),
        errors.EventError: errors.EventError("1-1", "status: unknown"),
        errors.NotAccepted: errors.NotAccepted("bitget:main"),
        errors.BrokerDown: errors.BrokerDown(CAUSE),
        errors.BrokerRefused: errors.BrokerRefused(redis.exceptions.ResponseError("no")),
        errors.Uncertain: errors.Uncertain("bitget:main", {"id": "a"}, CAUSE),
        errors.Unconfirmed: errors.Unconfirmed("bitget:main", {"id": "a"}, CAUSE),
        errors.BatchIncomplete: errors.BatchIncomplete(
            "bitget:main", queued=[], uncertain=[], not_queued=[{}], cause=CAUSE
        ),
        errors.Conflicting: errors.Conflicting(["a"]),
        errors.OutcomeTimeout: errors.OutcomeTimeout(["a"], 1.0),
        errors.NoResults: errors.NoResults("bitget:main"),
        errors.GroupMissing: errors.GroupMissing("bitget:main", "desk", "XGROUP CREATE"),
    }
    return made[kind]


CODES = {
    errors.LaneError: Exit.USAGE,
    errors.UrlError: Exit.CONFIGURATION,
    errors.IntentError: Exit.BAD_INPUT,
    errors.EventError: Exit.UNHEALTHY,
    errors.NotAccepted: Exit.UNHEALTHY,
    errors.BrokerDown: Exit.UNREACHABLE,
    errors.BrokerRefused: Exit.UNREACHABLE,
    errors.Uncertain: Exit.UNREACHABLE,
    errors.Unconfirmed: Exit.UNREACHABLE,
    errors.BatchIncomplete: Exit.UNREACHABLE,
    errors.Conflicting: Exit.UNHEALTHY,
    errors.OutcomeTimeout: Exit.UNHEALTHY,
    errors.NoResults: Exit.UNHEALTHY,
    errors.GroupMissing: Exit.CONFIGURATION,
}


def kinds() -> list[type[errors.CancelqError]]:
    """Every error of the asking side that can be raised, so that a new one fails here until it has words."""
    return [
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.CancelqError) and kind is not errors.CancelqError
    ]


@pytest.mark.parametrize("kind", kinds())
def test_every_error_of_the_client_is_told_in_words(kind: type[errors.CancelqError]) -> None:
    failure = failure_of(an_error(kind))
    assert failure.code == CODES[kind]
    assert failure.remedy
    assert not failure.message.startswith("unexpected")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (redis.exceptions.ConnectionError("Error 111"), Exit.UNREACHABLE),
        (redis.exceptions.TimeoutError("Timeout"), Exit.UNREACHABLE),
        (redis.exceptions.BusyLoadingError("LOADING"), Exit.UNREACHABLE),
        (redis.exceptions.ReadOnlyError("READONLY"), Exit.UNREACHABLE),
        (redis.exceptions.ResponseError("ERR"), Exit.UNREACHABLE),
        (redis.exceptions.AuthenticationError("WRONGPASS"), Exit.CONFIGURATION),
        (redis.exceptions.AuthorizationError("NOAUTH"), Exit.CONFIGURATION),
        (redis.exceptions.NoPermissionError("NOPERM"), Exit.CONFIGURATION),
    ],
)
def test_redis_errors_tell_who_is_to_act(error: Exception, code: Exit) -> None:
    assert failure_of(error).code == code


def test_all_problems_of_the_settings_are_told() -> None:
    failure = failure_of(SettingsError(["a.toml:1 one", "a.toml:2 two"]))
    assert failure.message.splitlines() == ["a.toml:1 one", "a.toml:2 two"]
    assert failure.code == Exit.CONFIGURATION


def test_what_nobody_thought_of_is_called_a_fault_of_the_program_and_leaks_nothing() -> None:
    failure = failure_of(RuntimeError("redis://user:canary@host signature=canary"))
    assert failure.message.startswith("unexpected RuntimeError")
    assert failure.code == Exit.UNHEALTHY
    assert "canary" not in failure.message


@pytest.mark.parametrize(
    ("error", "said", "remedy"),
    [
        (redis.exceptions.NoPermissionError("no permissions"), "Redis refused user auditor: no perm", "ACL LOG"),
        (redis.exceptions.AuthenticationError("invalid pair"), "Redis refused user auditor: invalid", "right user"),
        (errors.BrokerRefused(redis.exceptions.ResponseError("NOPERM no right")), "user auditor: no right", "ACL LOG"),
        (redis.exceptions.ConnectionError("alert unknown ca"), "does not trust the client's", "names the certificates"),
        (errors.BrokerDown(redis.exceptions.ConnectionError("alert unknown ca")), "trust the client's", "certificates"),
    ],
)
def test_who_is_not_let_in_is_told_as_which_user_and_why(error: Exception, said: str, remedy: str) -> None:
    failure = failure_of(error, "auditor")
    assert said in failure.message
    assert remedy in failure.remedy


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("no way to redis://user:canary@host"),
        redis.exceptions.ResponseError("ERR redis://user:canary@host"),
        errors.BrokerDown(redis.exceptions.ConnectionError("no way to redis://user:canary@host")),
    ],
)
def test_what_a_server_quotes_leaks_no_password(error: Exception) -> None:
    assert "canary" not in failure_of(error).message


@pytest.mark.parametrize("code", ["OOM", "MISCONF"])
def test_a_server_that_cannot_write_is_unhealthy_and_not_away(code: str) -> None:
    refused = errors.BrokerRefused(redis.exceptions.ResponseError(f"{code} cannot write"))
    assert failure_of(refused).code == Exit.UNHEALTHY
