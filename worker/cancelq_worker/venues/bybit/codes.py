"""Bybit's return codes, as data: what each means for a cancel, and who says so.

Matched on the code alone, but for the texts of `TEXTS`. A code that is not here is unclear and is looked up; it is
never a success. Sources: BY-doc (the error page of Bybit's v5 documents), ccxt (its exception table), TS
(tiagosiebler/bybit-api, tests against the live venue), NT (nautilus_trader, its list of ambiguous codes). Tables that
call 10001 to 10005 "not found", "already cancelled" or "filled" are wrong: those are about parameter, clock, key,
signature and permission.
"""

from __future__ import annotations

from cancelq_worker.venues.port import Word

OK = "0"

_ROWS: tuple[tuple[Word, str, str], ...] = (
    # (meaning, codes, source)
    (Word.GONE, "170213", "BY-doc: order does not exist; stands per item in the batch page's example"),
    (Word.GONE, "110001", "BY-doc, TS: order does not exist, or too late to cancel, which may be a fill"),
    (Word.GONE, "170143", "BY-doc: cannot be found on the order book"),
    (Word.GONE, "170142", "BY-doc: order has been cancelled"),
    (Word.GONE, "170139", "BY-doc: order has been filled"),
    (Word.GONE, "170190", "BY-doc: cancel order has been finished"),
    (Word.GONE, "110008 110010", "BY-doc: order has been finished or cancelled; order has been cancelled"),
    (Word.ACKNOWLEDGED, "170212", "BY-doc: cancel order request is processing"),
    (Word.ACKNOWLEDGED, "170035", "BY-doc: submitted to the system for processing"),
    (Word.UNCLEAR, "10014", "BY-doc: invalid duplicate request"),
    (Word.UNCLEAR, "170191", "BY-doc: cannot cancel order, please try again later"),
    (Word.UNCLEAR, "110079", "BY-doc: order is being processed"),
    (Word.UNCLEAR, "170144", "BY-doc: order has been locked"),
    (Word.UNCLEAR, "170147 170150", "BY-doc: cancel timed out; cancel failed"),
    (
        Word.UNCLEAR,
        "10000 10016 10019 20006 170001 170007 170032 170234 500000",
        "BY-doc, NT: time-out, server, network or system error: ambiguous",
    ),
    (Word.LATER, "170031", "BY-doc: the feature is suspended for now"),
    (Word.REFUSED, "10006 170222 170005", "BY-doc: too many visits, requests or new orders"),
    (Word.REFUSED, "10018", "BY-doc, retired: too many visits from this address"),
    (Word.REFUSED, "429 10429", "BY-doc: system level frequency protection"),
    (Word.REFUSED, "10403 20003", "BY-doc: too frequent on the order entry socket"),
    (Word.FAILED, "10001", "BY-doc: request parameter error, unsupported symbols among them"),
    (Word.FAILED, "170121 170105 170130", "BY-doc: invalid symbol; empty parameter; invalid data"),
    (Word.FAILED, "170145", "BY-doc: this order type does not support cancellation"),
    (Word.FAILED, "170201", "BY-doc: invalid orderFilter parameter"),
    (Word.FAILED, "110019 110032", "BY-doc: bad order id; illegal order id"),
    (Word.FAILED, "10017 10404", "BY-doc: route or method not found"),
    (Word.FAILED, "10029", "BY-doc: symbol is not on the key's list"),
    (Word.FAILED, "10032", "users of demo trading: not supported on demo"),
    (Word.FAILED, "170209", "BY-doc: the pair is not available in this region"),
    (Word.CLOCK, "10002 -1", "BY-doc: time stamp outside the window; request expired"),
    (Word.ACCOUNT, "10003 33004 -2015", "BY-doc, ccxt: key invalid, expired, or of another environment"),
    (Word.ACCOUNT, "10004", "BY-doc: signature"),
    (Word.ACCOUNT, "10005", "BY-doc: permission"),
    (Word.ACCOUNT, "10007", "BY-doc: authentication failed"),
    (Word.ACCOUNT, "10010", "BY-doc: address not on the key's list"),
    (Word.ACCOUNT, "10008 10009 10027", "BY-doc: account, address or its trading is banned"),
    (Word.ACCOUNT, "10024", "BY-doc: compliance rules"),
    (Word.ACCOUNT, "10028", "BY-doc: only for unified accounts"),
)

#: code → meaning
CODES: dict[str, Word] = {code: word for word, codes, _ in _ROWS for code in codes.split()}
#: code → who says so
SOURCES: dict[str, str] = {code: source for _, codes, source in _ROWS for code in codes.split()}

#: Codes of GONE by which the venue says that there was such an order. It forgets cancelled ones after 24 hours, so
#: that finding it nowhere proves nothing any more.
HAD_AN_END = frozenset({"170142", "170139", "170190", "110008", "110010"})
#: Codes of GONE that do not tell whether there ever was such an order.
NO_SUCH_ORDER = frozenset(code for code, word in CODES.items() if word is Word.GONE) - HAD_AN_END

#: Where one code stands for several things: code → (a part of the text, in small letters; the meaning).
TEXTS: dict[str, tuple[str, Word]] = {
    "10001": ("sign params error", Word.ACCOUNT),  # ccxt: headers of the signature are missing
}

#: Plain words for the account codes a desk meets, with the remedy.
REMEDIES: dict[str, str] = {
    "10003": "the API key is not known here: check API_KEY and the environment (a demo key needs demo = true, a "
    "testnet key testnet = true)",
    "10004": "the signature was refused: check API_SECRET",
    "10005": "the key lacks a permission: give it spot trade, read and write",
    "10010": "this address is not on the key's IP list: add it at Bybit",
    "10028": "the account is no unified account (UTA), which these calls need: upgrade it at Bybit",
    "33004": "the API key has expired: make a new one",
}


def word_of(code: str, text: str = "") -> Word:
    """The meaning of a code; unlisted ones are unclear."""
    part, meaning = TEXTS.get(code, ("", Word.UNCLEAR))
    return meaning if part and part in text.lower() else CODES.get(code, Word.UNCLEAR)
