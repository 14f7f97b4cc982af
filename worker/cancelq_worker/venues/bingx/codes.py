"""BingX's answer codes, as data: what each means for a cancel, and who says so.

BingX uses one code for unrelated things, so a row is a code and, where that is not enough, a pattern in its text
(stripped, blanks collapsed, case folded). The first row that fits counts. What is not here is unclear and is looked
up; it is never a success. Sources: BX-doc and BX-doc3 (BingX's error tables of 2025), BX-skill (BingX's own skill
pack), OB (live answers quoted by OctoBot), JK (JKorf/BingX.Net), ccxt (its exception table and captures).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cancelq_worker.venues.port import Word

OK: Final = "0"
SECOND_US: Final = 1_000_000
#: BX-doc: a limit that was tripped lifts after five minutes, unless the answer tells when.
LIMIT_US: Final = 300 * SECOND_US

_BUSY: Final = r"system is busy"
_ENDED: Final = r"(filled or cancell?ed|cancell?ed or filled) already|not a valid order id"
_DOUBTFUL: Final = r"not a valid order id"  # stands in one text with the words for an end
_NO_ORDER: Final = r"order (does )?not exist"


@dataclass(frozen=True, slots=True)
class Row:
    """`pattern`: what the text must hold, "" for any text."""

    word: Word
    codes: str
    pattern: str
    source: str


ROWS: Final[tuple[Row, ...]] = (
    Row(Word.GONE, "100404", _NO_ORDER, "OB: live answers; BX-skill"),
    Row(Word.GONE, "100404", _ENDED, "OB: live answers; BX-skill"),
    Row(Word.FAILED, "100404", r"api (path )?(is |does )?not exist", "BX-skill, captures: no such path"),
    Row(Word.GONE, "100400", _ENDED, "BX-doc, BX-doc3"),
    Row(Word.SPLIT, "100400", r"field validation for '(clientorderids|orderids)'", "BX-doc: a list it does not take"),
    Row(Word.AGAIN, "100400", _BUSY, "BX-doc"),
    Row(Word.AGAIN, "100400", r"only be submitted once per second", "BX-doc"),
    Row(Word.FAILED, "100400", r"invalid param|field validation|mismatch type|missing", "BX-doc, ccxt 18972"),
    Row(Word.CLOCK, "100421", r"timestamp", "BX-doc: no time stamp, or one that is off"),
    Row(Word.GONE, "100421", _NO_ORDER, "BX-doc3"),
    Row(Word.AGAIN, "100421", _BUSY, "BX-doc"),
    Row(
        Word.FAILED,
        "100421",
        r"contract not exist|symbol.* not (available|exist)|restricted",
        "BX-doc3, ccxt: a pair that is not traded, or not by API",
    ),
    Row(Word.AGAIN, "100202", _BUSY, "BX-doc"),
    Row(Word.AGAIN, "100410", _BUSY, "ccxt"),
    Row(Word.REFUSED, "100410", "", "BX-doc: over the limit, or an endpoint closed after equal errors"),
    Row(Word.REFUSED, "109429", "", "BX-skill, JK: too many invalid requests"),
    Row(Word.ACCOUNT, "109403", "", "BX-skill: risk control, the share of cancels among it"),
    Row(
        Word.UNCLEAR,
        "100500 100503 80012 109500 110500 101500",
        "",
        "BX-doc: busy, internal error, unavailable, time-out within the venue",
    ),
    Row(Word.GONE, "80016 109421", "", "BX-doc, ccxt, JK: order does not exist"),
    Row(Word.GONE, "80018 109422", "", "BX-doc, JK: order already filled"),
    Row(Word.UNCLEAR, "80019", "", "BX-doc: order is being processed"),
    Row(Word.GONE, "100204", "", "BX-doc: no data"),
    Row(Word.LATER, "100490", "", "BX-doc3: spot symbol offline"),
    Row(Word.CLOCK, "80014 109400", r"timestamp", "BX-doc: timestamp is invalid"),
    Row(Word.FAILED, "80014 109400", "", "BX-doc: invalid parameter"),
    Row(Word.ACCOUNT, "100001 100412 100413", "", "all: signature wrong or missing, key wrong or missing"),
    Row(Word.ACCOUNT, "100004", "", "all: the key lacks a permission"),
    Row(Word.ACCOUNT, "100419", "", "all: IP address not on the key's list"),
    Row(Word.ACCOUNT, "100414 100441 101402", "", "BX-doc3, BX-skill: risk control, identity, account not allowed"),
)

_OF: Final[dict[str, list[tuple[re.Pattern[str], Word]]]] = {}
for _row in ROWS:
    for _code in _row.codes.split():
        _OF.setdefault(_code, []).append((re.compile(_row.pattern), _row.word))


@dataclass(frozen=True, slots=True)
class StatusRow:
    """What an HTTP status means whose body has no code of the table. `retry_us`: how long to keep away, 0 if that
    is not told; `whole_address`: it is about everything from this address."""

    word: Word
    retry_us: int
    whole_address: bool
    source: str


STATUSES: Final[dict[int, StatusRow]] = {
    401: StatusRow(Word.ACCOUNT, 0, False, "BX-doc3: key"),
    403: StatusRow(Word.REFUSED, LIMIT_US, True, "BX-doc3: firewall, typically five minutes"),
    418: StatusRow(Word.REFUSED, 3 * LIMIT_US, True, "BX-doc3: address banned; for how long is not told"),
    429: StatusRow(Word.REFUSED, 0, True, "BX-doc3: too many requests"),
}
#: Those that mean the same whatever code stands in the body.
LIMIT_STATUSES: Final = frozenset({418, 429})

#: Codes which, where they mean FAILED, say that the pair cannot be traded; so a look says it as well as a cancel does.
ABOUT_THE_PAIR: Final = frozenset({"100421"})

#: What a batch says of one order that it did not cancel: there is no code, only a text.
ITEMS: Final[tuple[tuple[Word, str, str], ...]] = (
    (Word.GONE, r"order status ?: ?(?P<state>cancell?ed|filled|failed|expired)\b", "BX-doc3: its sample"),
    (Word.GONE, r"can ?not find order", "JK issue 25: a live answer"),
)

#: Codes of GONE that say that there was such an order, whatever their text is.
HAD_AN_END: Final = frozenset({"80018", "109422"})

#: Plain words for the account codes a desk meets, with the remedy.
REMEDIES: Final[dict[str, str]] = {
    "100001": "the signature was refused: check API_SECRET",
    "100004": "the key lacks a permission: give it Spot Trading",
    "100413": "the API key is not known to BingX: check API_KEY",
    "100419": "this address is not on the key's IP list: add it at BingX",
    "109403": "BingX' risk control stopped this account, perhaps for its share of cancels: ask BingX",
}

_UNTIL = re.compile(r"(?<![0-9])1[0-9]{12}(?![0-9])")


def normalised(text: str) -> str:
    return " ".join(text.split()).casefold()


def word_of(code: str, text: str) -> Word:
    """The meaning of a code with its text; what is not listed is unclear."""
    plain = normalised(text)
    return next((word for pattern, word in _OF.get(code, ()) if pattern.search(plain)), Word.UNCLEAR)


def may_be_unmet(code: str, text: str) -> bool:
    """Whether a refusal may mean that the order was not in the state a conditional cancel wants. How BingX says so is
    documented nowhere: that there is no such order, or in words that no row here knows."""
    plain = normalised(text)
    word = next((word for pattern, word in _OF.get(code, ()) if pattern.search(plain)), None)
    return word in (None, Word.GONE)


def had_an_end(code: str, text: str) -> bool | None:
    """Of a refusal that means GONE: whether the venue says that there was such an order; None if it leaves that open.
    False: it knows none."""
    if code in HAD_AN_END:
        return True
    plain = normalised(text)
    if not re.search(_ENDED, plain):
        return False
    return None if re.search(_DOUBTFUL, plain) else True


def item_of(text: str) -> tuple[Word, str]:
    """The meaning of a failed item's text, and the state it names, "" if none."""
    plain = normalised(text)
    for word, pattern, _ in ITEMS:
        found = re.search(pattern, plain)
        if found:
            return word, (found.groupdict().get("state") or "").upper()
    return Word.UNCLEAR, ""


def until_ms(text: str) -> int:
    """The time a refusal tells (epoch ms of the venue's clock), 0 if it tells none."""
    found = _UNTIL.search(text)
    return int(found.group()) if found else 0
