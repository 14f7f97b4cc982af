"""Answers that repeat a call's secrets: found however they are spelt, and nothing else is taken for one."""

import html
import json
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelq_worker.repeating import SHORTEST, repeats, secrets_of_call, secrets_of_login
from cancelq_worker.venues.port import Request, Signed

SECRET = 'p@ss/w+rd="&<canary>'
SPELT = {
    "plain": SECRET,
    "json": json.dumps({"msg": f"bad {SECRET}"}),
    "json with escaped slashes": json.dumps({"msg": f"bad {SECRET}"}).replace("/", "\\/"),
    "percent-encoded": f"GET /?a={quote(SECRET, safe='')}",
    "percent-encoded in small letters": f"GET /?a={quote(SECRET, safe='').lower()}",
    "html": f"<pre>ACCESS-PASSPHRASE: {html.escape(SECRET)}</pre>",
}


@pytest.mark.parametrize("spelt", SPELT)
def test_a_secret_is_found_however_it_is_spelt(spelt: str) -> None:
    assert repeats(SPELT[spelt].encode(), ["something else", SECRET])
    assert not repeats(SPELT[spelt].encode(), ["something else"])


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=SHORTEST, max_size=40))
def test_any_secret_is_found_in_a_message_and_on_a_page(secret: str) -> None:
    for answer in (json.dumps({"msg": secret}), f"<p>{html.escape(secret)}</p>", quote(secret, safe="")):
        assert repeats(f"before {answer} after".encode(), [secret])


@pytest.mark.parametrize(
    ("headers", "query", "secrets"),
    [
        (
            {
                "ACCESS-KEY": "canary-key", "ACCESS-SIGN": "canary-sign", "ACCESS-TIMESTAMP": "1700000000000",
                "ACCESS-PASSPHRASE": "canary-pass", "Content-Type": "application/json", "locale": "en-US",
            },
            "symbol=BTCUSDT",
            {"canary-key", "canary-sign", "canary-pass"},
        ),
        (
            {"X-BAPI-API-KEY": "canary-key", "X-BAPI-SIGN": "canary-sign", "X-BAPI-RECV-WINDOW": "5000000"},
            "",
            {"canary-key", "canary-sign"},
        ),
        (
            {"X-BX-APIKEY": "canary-key"},
            "symbol=BTC-USDT&timestamp=1700000000000&signature=canary-sign",
            {"canary-key", "canary-sign"},
        ),
        ({"X-BX-APIKEY": "canary-key"}, "listenKey=canary-listen", {"canary-key", "canary-listen"}),
        ({"X-BX-APIKEY": "short"}, "", set()),
        ({"ACCESS-PASSPHRASE": "sixsix"}, "", {"sixsix"}),
    ],
)  # fmt: skip
def test_what_of_a_call_is_secret(headers: Mapping[str, str], query: str, secrets: set[str]) -> None:
    signed = Signed(Request("POST", "/path", query, b'{"orderId":"1"}'), dict(headers))
    assert set(secrets_of_call(signed)) == secrets


def test_what_of_a_login_is_secret() -> None:
    login = json.dumps({"op": "login", "args": [{"apiKey": "canary-key", "timestamp": "1", "sign": "canary-sign"}]})
    auth = json.dumps({"op": "auth", "args": ["canary-other", 1_700_000_000_000, "canary-last"]})
    assert set(secrets_of_login([login, auth, "ping"])) == {"canary-key", "canary-sign", "canary-other", "canary-last"}
