"""Bitget's answer codes, as data: what each means for a cancel, and who says so.

Matched on the code alone, because texts are templated and localised. A code that is not here is unclear and
is looked up; it is never a success. Sources: BG-doc (Bitget's error code pages, classic API), FAQ (Bitget's
API FAQ, Q14: release windows), ccxt (its exception table and captures in its issues), HB (Hummingbot), JK
(JKorf/Bitget.Net). Bitget's own "agent_hub" list contradicts the documentation and was not used.
"""

from __future__ import annotations

from cancelq_worker.venues.port import Word

OK = "00000"

_ROWS: tuple[tuple[Word, str, str], ...] = (
    # (meaning, codes, source)
    (
        Word.GONE,
        "43001",
        "BG-doc: order does not exist; seen for cancelled, filled and margin orders (ccxt 24559, 22717)",
    ),
    (Word.GONE, "22001 43004", "BG-doc: no order to cancel"),
    (
        Word.GONE,
        "40109",
        "BG-doc: order data cannot be found; also a live trigger order at the normal endpoint (ccxt 25093)",
    ),
    (Word.GONE, "40768 40819 45057 31007 80011", "ccxt, HB, JK, BG-doc: order does not exist"),
    (Word.GONE, "43025 43026", "BG-doc: plan order missing, closed"),
    (Word.GONE, "43020 43021", "BG-doc: TP/SL order missing, closed"),
    (Word.GONE, "45031 45055 50062 45134 40769", "BG-doc: finalised or no longer cancellable"),
    (Word.FAILED, "45056", "BG-doc: this order type cannot be cancelled"),
    (Word.UNCLEAR, "45024", "BG-doc: cancel order error"),
    (Word.AGAIN, "45129", "BG-doc: the same order cancelled more than once within a second"),
    (Word.REFUSED, "429 25004", "BG-doc: too many requests"),
    (Word.UNCLEAR, "40010 40910 25001", "BG-doc: timed out"),
    (
        Word.UNCLEAR,
        "40015 40725 45001 40908 43059 50031 25000 25003",
        "BG-doc, FAQ: system abnormal, unknown, concurrent",
    ),
    (Word.LATER, "40200", "BG-doc: server upgrade"),
    (Word.LATER, "41114 45043 50027 25102 25106", "BG-doc: pair or trading under maintenance"),
    (Word.DOUBTED, "40808", "BG-doc: parameter verification exception; passing within a release window (FAQ)"),
    (
        Word.FAILED,
        "40017 40019 40020 40034 40064 40402 40305 40913 40924 43011 48001 48002 00171 00172 40102 42016",
        "BG-doc, ccxt: bad or missing parameter, bad symbol",
    ),
    (Word.SPLIT, "40912 40306", "BG-doc: batch too large"),
    (Word.FAILED, "40007 40404", "BG-doc: content type, URL"),
    (Word.ACCOUNT, "40001 40002 40003 40006 40009 40011 40012 40036 40037 40041", "BG-doc: key, signature, passphrase"),
    (Word.ACCOUNT, "40014 40025 40040 40061 40068", "BG-doc: permission"),
    (Word.ACCOUNT, "40018 40038", "BG-doc: IP address not allowed"),
    (Word.ACCOUNT, "40013 40022 40023 40024 40026 40031 40710 50012 50013", "BG-doc: account restricted or frozen"),
    (Word.ACCOUNT, "40000 40103 40104 40111 40027 40035 40100 40101", "BG-doc: region, identity"),
    (Word.ACCOUNT, "40099", "captures: exchange environment is incorrect, a demo key on the live side or the reverse"),
    (Word.ACCOUNT, "40085 40115 40128 25245", "ccxt capture, BG-doc: account mode, classic or unified (UTA)"),
    (Word.CLOCK, "40004 40005 40008 40078 40079", "BG-doc, ccxt: time stamp"),
    (Word.FAILED, "40081 40105 40110 22030", "BG-doc: not available in demo"),
)

#: code → meaning
CODES: dict[str, Word] = {code: word for word, codes, _ in _ROWS for code in codes.split()}
#: code → who says so
SOURCES: dict[str, str] = {code: source for _, codes, source in _ROWS for code in codes.split()}

#: Codes of GONE by which the venue says that there was such an order: finding it nowhere proves nothing then.
HAD_AN_END = frozenset({"43026", "43021", "45031", "45055", "50062", "45134", "40769"})

_UNIFIED = (
    "this is a unified account (UTA), or one that is being switched to it, and Bitget's classic v2 calls, which are "
    "used here, do not serve it: use a classic account, such as a sub-account that was never switched"
)

#: Plain words for the account codes a desk meets, with the remedy.
REMEDIES: dict[str, str] = {
    "40006": "the API key is not known to Bitget: check API_KEY and the environment (a demo key needs demo = true)",
    "40009": "the signature was refused: check API_SECRET",
    "40012": "key or passphrase is wrong: check API_KEY and PASSPHRASE",
    "40014": "the key lacks a permission: give it Spot trade",
    "40018": "this address is not on the key's IP list: add it at Bitget",
    "40037": "the API key does not exist: check API_KEY",
    "40099": "the key belongs to the other environment: set or remove demo = true for this account",
    "40085": _UNIFIED,
    "40115": _UNIFIED,
    "40128": _UNIFIED,
}


def word_of(code: str) -> Word:
    """The meaning of a code; unlisted ones are unclear."""
    return CODES.get(code, Word.UNCLEAR)
