"""Log lines: JSON where no person looks, one way for ours and the libraries', and no secret on it."""

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker import logs, redaction


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hook, known = root.handlers[:], root.level, threading.excepthook, redaction._known
    redaction._known = redaction._Known()
    yield
    redaction._known = known
    root.handlers[:], root.level, threading.excepthook = handlers, level, hook
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_ours_and_the_libraries_lines_take_the_same_way() -> None:
    stream = io.StringIO()
    logs.configure(stream)
    structlog.get_logger("ours").bind(lane="bitget:main").info("batch", size=50)
    logging.getLogger("theirs").warning("hello %s", "there")
    ours, theirs = lines(stream)
    assert ours.pop("timestamp")
    assert ours == {"event": "batch", "lane": "bitget:main", "level": "info", "logger": "ours", "size": 50}
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("hello there", "warning", "theirs")


def test_a_terminal_gets_lines_for_people() -> None:
    stream = io.StringIO()
    logs.configure(stream, pretty=True)
    structlog.get_logger("ours").info("batch", size=50)
    assert "batch" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_what_httpx_prints_at_info_is_not_written() -> None:
    stream = io.StringIO()
    logs.configure(stream)
    logging.getLogger("httpx").info("HTTP Request: POST https://host/path?signature=canary")
    logging.getLogger("httpcore.http11").debug("canary")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("pretty", [True, False])
def test_tracebacks_show_no_local_variables(pretty: bool) -> None:
    stream = io.StringIO()
    logs.configure(stream, pretty=pretty)
    for log in (structlog.get_logger("ours"), logging.getLogger("theirs")):
        canary = "canary" + "-in-a-local"
        try:
            raise RuntimeError("signature=canary-in-a-message")
        except RuntimeError:
            log.exception("broken")
        assert canary
    assert "RuntimeError" in stream.getvalue()
    assert "canary-in" not in stream.getvalue()


def test_a_thread_that_breaks_is_told_like_everything_else() -> None:
    stream = io.StringIO()
    logs.configure(stream)

    def broken() -> None:
        raise RuntimeError("signature=canary")

    thread = threading.Thread(target=broken, name="pulse")
    thread.start()
    thread.join()
    (line,) = lines(stream)
    assert line["event"] == "thread pulse ended by an error"
    assert "RuntimeError" in str(line["exception"])
    assert "canary" not in stream.getvalue()


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key": "canary"},
        {"api_secret": b"canary"},
        {"passphrase": "canary"},
        {"headers": {"ACCESS-KEY": "canary", "ACCESS-SIGN": "canary", "ACCESS-PASSPHRASE": "canary"}},
        {"headers": [{"X-BAPI-API-KEY": "canary"}, {"X-BAPI-SIGN": "canary"}, {"X-BX-APIKEY": "canary"}]},
        {"url": "https://host/path?symbol=BTC-USDT&signature=canary&timestamp=1"},
        {"url": b"redis://user:canary@host:6379/0"},
        {"error": ValueError("sign=canary")},
        {"text": "{'ACCESS-SIGN': 'canary', 'a': 1}"},
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"too deep": "canary"}}}}}}}},
        {"authorization": "Basic canary"},
        {"access_token": "canary"},
        {"api key": "canary"},
        {"sign": "canary"},
        {"params": {"x-sign": "canary"}},
        {"texts": ("listenKey=canary", "wss://host/market?listenKey=canary")},
        {"texts": {"listen_key: canary"}},
        {"head": "X-BAPI-SIGN: canary\r\nX-BAPI-TIMESTAMP: 1"},
        {"head": "X-BAPI-API-KEY: canary"},
        {"head": "X-BX-APIKEY : canary"},
        {"head": "ACCESS-PASSPHRASE: canary"},
        {"head": bytearray(b"ACCESS-KEY: canary")},
    ],
)
@pytest.mark.parametrize("pretty", [True, False])
def test_what_looks_like_a_secret_is_blanked(fields: dict[str, object], pretty: bool) -> None:
    stream = io.StringIO()
    logs.configure(stream, pretty=pretty)
    structlog.get_logger("ours").info("request", **fields)
    assert "canary" not in stream.getvalue()
    assert redaction.BLANK in stream.getvalue()


@pytest.mark.parametrize("pretty", [True, False])
def test_what_was_concealed_is_blanked_wherever_it_stands(pretty: bool) -> None:
    """Also where nothing around it tells that it is a secret: in a library's words, in a traceback."""
    stream = io.StringIO()
    logs.configure(stream, pretty=pretty)
    redaction.conceal(["canary-7f", "canary-7f-and-more"])
    redaction.conceal(["another-canary"])
    try:
        raise RuntimeError("the server said canary-7f-and-more to another-canary")
    except RuntimeError:
        logging.getLogger("theirs").exception("odd words: %s", "xcanary-7fx")
    structlog.get_logger("ours").info("said", what=["canary-7f"])
    told = stream.getvalue()
    assert "canary" not in told
    assert "and-more" not in told
    assert f"x{redaction.BLANK}x" in told


@given(st.lists(st.text("xy", max_size=5)), st.text("xyz", max_size=40))
def test_every_concealed_value_is_blanked_the_longest_first(secrets: list[str], text: str) -> None:
    """As if the text were looked through for each in turn; one may begin with another, or be the shortest so far."""
    known = redaction._Known()
    for secret in secrets:
        known.add([secret])
    told = text
    for secret in sorted({*secrets} - {""}, key=len, reverse=True):
        told = told.replace(secret, redaction.BLANK)
    assert known.blanked(text) == told


NAMES = st.sampled_from(["size", "lane", "order_id", "sent_us", "kind", "design"])
VALUES = st.integers() | st.from_regex(r"[A-Za-z0-9:._-]*", fullmatch=True)


@given(st.dictionaries(NAMES, VALUES))
def test_other_values_are_left_as_they_are(fields: dict[str, int | str]) -> None:
    assert redaction.redact(None, "info", dict(fields)) == fields
