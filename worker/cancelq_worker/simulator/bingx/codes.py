"""BingX's error codes as far as the simulator gives them, each with what it says.

BingX uses one code for unrelated things, so a refusal is a code and a text. Texts follow the error tables of
BingX's endpoint pages and captures of live answers; where a call is refused for what no page tells, the text is
made up in their manner, and nobody may match on it.
"""

OK = "0"

TIMESTAMP_INVALID = "80014"
# A cancel of the order is under way already.
IN_PROCESS = "80019"
SIGN_WRONG = "100001"
NO_PERMISSION = "100004"
# On a query: the venue knows no such order.
NO_DATA = "100204"
PARAMETER = "100400"
NOT_FOUND = "100404"
TOO_MANY = "100410"
SIGN_MISSING = "100412"
KEY_WRONG = "100413"
# A clock that is off, an order that does not exist, or a pair that is not traded: only the text tells.
MISMATCH = "100421"

SYSTEM_BUSY = "100500"

# Of no table; a client must not take it for anything.
INVENTED = "199987"

# With the blank in front, as captured.
NO_ORDER = " order not exist"
NO_ORDER_TO_CANCEL = "cancel fail, order not exist"
DEAD_ORDER = "the order you want to cancel is FILLED or CANCELLED already, or is not a valid order id ,please verify"
NO_SUCH_PATH = (
    "this api is not exist, please refer to the API docs https://bingx-api.github.io/docs and check the version"
)
NO_PAIR = "CheckUserAndSymbol: contract not exist"
NOT_RESTRICTED_TO = "cancel fail, the order status does not match cancelRestrictions"
BUSY = "The current system is busy, please try again later"
RATE_LIMITED = "rate limited"

TEXTS = {
    TIMESTAMP_INVALID: "timestamp is invalid",
    IN_PROCESS: "order is being processed",
    SIGN_WRONG: "Signature verification failed due to signature mismatch",
    NO_PERMISSION: (
        "Permission denied as the API key was created without the permission, this api need Spot Trading permission,"
        " please config it in https://bingx.com/en/account/api"
    ),
    "100202": "Insufficient assets, please verify the assets status",
    NO_DATA: "no data",
    PARAMETER: "Invalid parameters",
    NOT_FOUND: NO_ORDER,
    TOO_MANY: RATE_LIMITED,
    SIGN_MISSING: "Null signature",
    KEY_WRONG: "Incorrect apiKey",
    "100414": "risk control check fail, code(1), reason()",
    "100419": "IP does not match IP whitelist",
    MISMATCH: (
        "Null timestamp or timestamp mismatch, try to run our sample code from the link"
        " https://bingx-api.github.io/docs/#/en-us/spot/account-api.html#Query%20Assets"
    ),
    "100490": "spot symbol is offline",
    SYSTEM_BUSY: BUSY,
    "100503": BUSY,
    INVENTED: "unexpected",
}


class Refusal(Exception):
    """The whole call is refused with this code; without a text of its own with the code's usual one."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.text = text or TEXTS.get(code, "")


def invalid(name: str, tag: str) -> Refusal:
    """A parameter that fails the venue's validation, in the words of its validator."""
    field = FIELDS.get(name, name[:1].upper() + name[1:])
    told = (
        f"Invalid parameters, err:Key: 'Request.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
    )
    return Refusal(PARAMETER, told)


FIELDS = {"orderIds": "OrderIDs", "clientOrderIDs": "ClientOrderIDs", "orderId": "OrderID"}
