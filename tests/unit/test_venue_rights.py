"""What a key may do, read from what the venues document; what is in no document is not known, never harmless."""

from __future__ import annotations

import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from cancelq_worker.venues.bingx.adapter import Bingx
from cancelq_worker.venues.bingx.signing import Credentials as BingxCredentials
from cancelq_worker.venues.bitget.adapter import Bitget
from cancelq_worker.venues.bitget.signing import Credentials as BitgetCredentials
from cancelq_worker.venues.bybit.adapter import Bybit
from cancelq_worker.venues.bybit.signing import Credentials as BybitCredentials
from cancelq_worker.venues.port import Answer, KeyRights, Reply, Venue, Word

KEY, SECRET = SecretStr("test-api-key"), SecretStr("test-api-secret")
BITGET: Venue = Bitget(BitgetCredentials(KEY, SECRET, SecretStr("test-passphrase")))
BYBIT: Venue = Bybit(BybitCredentials(KEY, SECRET))
BINGX: Venue = Bingx(BingxCredentials(KEY, SECRET))
AT_MS = 1_700_000_000_000


def rights(venue: Venue, body: Any, status: int = 200) -> KeyRights:
    said = venue.read_rights(Answer(status, {}, json.dumps(body).encode()))
    assert isinstance(said, KeyRights)
    return said


def bitget(**data: Any) -> KeyRights:
    return rights(BITGET, {"code": "00000", "msg": "success", "requestTime": AT_MS, "data": data})


def bybit(**result: Any) -> KeyRights:
    return rights(BYBIT, {"retCode": 0, "retMsg": "", "result": result, "retExtInfo": {}, "time": AT_MS})


def bingx(**data: Any) -> KeyRights:
    return rights(BINGX, {"code": 0, "msg": "", "data": data})


class TestBitget:
    """The page "Get Account Information": its table of words, and its example with two others."""

    def test_the_words_of_its_table(self) -> None:
        assert bitget(authorities=["stor", "stow"], ips="127.0.0.1") == KeyRights(
            True, False, ("127.0.0.1",), None, ("stor", "stow")
        )
        assert bitget(authorities=["stow", "wwow"]).withdraw is True
        assert bitget(authorities=["stor", "coow", "taxr"]) == KeyRights(
            False, False, None, None, ("stor", "coow", "taxr")
        )

    def test_the_words_of_its_example(self) -> None:
        found = bitget(authorities=["trade", "readonly"], ips="")
        assert (found.trade, found.withdraw, found.addresses) == (True, False, ())

    def test_a_word_that_is_in_no_table_may_mean_anything(self) -> None:
        found = bitget(authorities=["stor", "xxxw"])
        assert (found.trade, found.withdraw) == (None, None)
        assert bitget(authorities=["stow", "wwow", "xxxw"]).withdraw is True

    def test_addresses_stand_between_commas(self) -> None:
        assert bitget(authorities=[], ips="203.0.113.7, 203.0.113.8").addresses == ("203.0.113.7", "203.0.113.8")


class TestBybit:
    """The page "Get API Key Information"."""

    def test_a_key_that_trades_spot(self) -> None:
        found = bybit(
            readOnly=0,
            permissions={"ContractTrade": [], "Spot": ["SpotTrade"], "Wallet": ["AccountTransfer"], "Options": []},
            ips=["*"],
            deadlineDay=83,
            expiredAt="2023-11-14T22:13:20Z",
        )
        assert found == KeyRights(True, False, (), AT_MS, ("Spot.SpotTrade", "Wallet.AccountTransfer"))

    def test_a_key_that_may_withdraw(self) -> None:
        held = {"Spot": ["SpotTrade"], "Wallet": ["AccountTransfer", "Withdraw"]}
        assert bybit(readOnly=0, permissions=held, ips=["203.0.113.7"]).withdraw is True
        read_only = bybit(readOnly=1, permissions=held, ips=["203.0.113.7"])
        assert (read_only.trade, read_only.withdraw) == (False, False)
        assert bybit(permissions=held).withdraw is True, "whether it is read only is not told"

    def test_what_is_missing_is_not_known(self) -> None:
        assert bybit(readOnly=0) == KeyRights(None, None)
        assert bybit(readOnly=0, permissions={"Spot": ["SpotTrade"]}).withdraw is None
        assert bybit(readOnly=0, permissions={"Wallet": "Withdraw"}).withdraw is None

    def test_a_key_without_an_end(self) -> None:
        bound = bybit(readOnly=0, permissions={"Wallet": []}, ips=["203.0.113.7"], expiredAt="2023-11-14T22:13:20Z")
        assert bound.expires_ms is None, "of keys that are bound it is not kept up"
        for text in ("", "0001-01-01T00:00:00Z", "never"):
            assert bybit(readOnly=0, permissions={"Wallet": []}, ips=["*"], expiredAt=text).expires_ms is None


class TestBingx:
    """The page "Query user API Key permissions", in both of its editions, and with and without the envelope."""

    def test_numbers(self) -> None:
        told = {"apiKey": "x", "permissions": [1, 2], "ipAddresses": ["203.0.113.7"], "note": "desk"}
        expected = KeyRights(True, False, ("203.0.113.7",), None, ("spot trading", "reading"))
        assert bingx(**told) == expected
        assert rights(BINGX, told) == expected
        assert bingx(permissions=[1, 5], ipAddresses=[]).withdraw is True
        assert bingx(permissions=[2]).trade is False
        assert bingx(permissions=["1", "5"]).withdraw is True

    def test_a_number_that_is_in_no_document(self) -> None:
        assert bingx(permissions=[1, 6]).withdraw is None

    def test_flags(self) -> None:
        found = bingx(ipRestrict=False, enableSpotAndMarginTrading=True, enableWithdrawals=False, enableReading=True)
        assert found == KeyRights(True, False, (), None, ("spot trading", "reading"))
        assert bingx(ipRestrict=True, enableWithdrawals=True).withdraw is True
        assert bingx(ipRestrict=True, enableWithdrawals=True).addresses is None


@pytest.mark.parametrize(
    ("venue", "body", "word"),
    [
        (BITGET, {"code": "40009", "msg": "sign signature error"}, Word.ACCOUNT),
        (BYBIT, {"retCode": 10003, "retMsg": "API key is invalid."}, Word.ACCOUNT),
        (BINGX, {"code": 100413, "msg": "Incorrect apiKey"}, Word.ACCOUNT),
    ],
)
def test_a_refusal_is_a_refusal(venue: Venue, body: Any, word: Word) -> None:
    said = venue.read_rights(Answer(200, {}, json.dumps(body).encode()))
    assert isinstance(said, Reply)
    assert said.word is word


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "authorities",
        "ips",
        "permissions",
        "readOnly",
        "ipAddresses",
        "expiredAt",
        "enableWithdrawals",
        "ipRestrict",
        "Wallet",
        "Spot",
    ]
)


@pytest.mark.parametrize("venue", [BITGET, BYBIT, BINGX], ids=lambda venue: venue.name)
@given(told=st.dictionaries(FIELDS, JSON, max_size=6))
def test_whatever_is_told_is_read_without_an_error(venue: Venue, told: dict[str, Any]) -> None:
    """And never as "may not withdraw", unless the venue's own words say so."""
    bodies = {
        "bitget": {"code": "00000", "data": told},
        "bybit": {"retCode": 0, "result": told},
        "bingx": {"code": 0, "data": told},
    }
    said = venue.read_rights(Answer(200, {}, json.dumps(bodies[venue.name]).encode()))
    assert isinstance(said, KeyRights)
    if said.withdraw is False:
        assert {"authorities", "permissions", "enableWithdrawals"} & told.keys()


@pytest.mark.parametrize("venue", [BITGET, BYBIT, BINGX], ids=lambda venue: venue.name)
def test_it_is_a_signed_read_without_a_body(venue: Venue) -> None:
    request = venue.rights_request()
    assert request is not None
    assert (request.method, request.query, request.body) == ("GET", "", b"")
    signed = venue.sign(request, AT_MS)
    assert SECRET.get_secret_value() not in str((signed.headers, signed.request))
    if venue.name == "bingx":
        covered = f"recvWindow=5000&timestamp={AT_MS}".encode()
        right = hmac.new(SECRET.get_secret_value().encode(), covered, "sha256").hexdigest()
        assert signed.request.query == f"{covered.decode()}&signature={right}"


def test_bybit_has_no_such_page_on_demo() -> None:
    assert Bybit(BybitCredentials(KEY, SECRET), singly=True).rights_request() is None
