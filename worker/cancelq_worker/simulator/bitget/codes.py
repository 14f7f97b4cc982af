"""Bitget's error codes as far as the simulator gives them, with what they say in both languages.

Codes and meanings: Bitget's classic error table. Texts are the venue's English ones and, where no `locale:
en-US` is sent, Chinese ones (only 43001's is known from a capture; nobody may match on them).
"""

OK = "00000"
TOO_MANY = "429"

KEY_EMPTY = "40001"
SIGN_EMPTY = "40002"
TIMESTAMP_BAD = "40005"
# A key that is none: captured for a header that held no key at all.
KEY_INVALID = "40006"
CONTENT_TYPE = "40007"
TIMESTAMP_EXPIRED = "40008"
SIGN_WRONG = "40009"
PASSPHRASE_EMPTY = "40011"
PASSPHRASE_WRONG = "40012"
NO_PERMISSION = "40014"
PARAMETER_FAILED = "40017"
PARAMETER_EMPTY = "40019"
PARAMETER_WRONG = "40020"
NO_SYMBOL = "40034"
# A key in the venue's form that it does not know.
KEY_UNKNOWN = "40037"
WINDOW_PASSED = "40078"
WINDOW_TOO_LONG = "40079"
UNIFIED_ACCOUNT = "40085"
# A demo key without `paptrading: 1`, or a live key with it; not in the documented table, but often captured.
WRONG_ENVIRONMENT = "40099"
NO_DATA = "40109"
CLIENT_ID_FORM = "40305"
URL_UNKNOWN = "40404"
BATCH_TOO_LARGE = "40912"
ID_MISSING = "40924"
NO_ORDER = "43001"
NO_TPSL = "43020"
TPSL_CLOSED = "43021"
NO_PLAN = "43025"
PLAN_CLOSED = "43026"
CLIENT_ID_TAKEN = "43118"
CANCEL_FAILED = "45024"
TOO_SOON = "45129"

# Of no table; a client must not take it for anything.
INVENTED = "99987"

TEXTS = {
    KEY_EMPTY: ("ACCESS_KEY cannot be empty", "ACCESS_KEY不能为空"),
    SIGN_EMPTY: ("ACCESS_SIGN cannot be empty", "ACCESS_SIGN不能为空"),
    TIMESTAMP_BAD: ("Invalid ACCESS_TIMESTAMP", "无效的ACCESS_TIMESTAMP"),
    KEY_INVALID: ("Invalid ACCESS_KEY", "无效的ACCESS_KEY"),
    CONTENT_TYPE: ("Invalid Content_Type", "无效的Content_Type"),
    TIMESTAMP_EXPIRED: ("Request timestamp expired", "请求时间戳过期"),
    SIGN_WRONG: ("sign signature error", "签名错误"),
    PASSPHRASE_EMPTY: ("ACCESS_PASSPHRASE cannot be empty", "ACCESS_PASSPHRASE不能为空"),
    PASSPHRASE_WRONG: ("apikey/password is incorrect", "apikey或密码不正确"),
    NO_PERMISSION: ("Incorrect permissions", "权限不正确"),
    PARAMETER_FAILED: ("Parameter verification failed {0}", "参数校验失败 {0}"),
    PARAMETER_EMPTY: ("Parameter {0} cannot be empty", "参数{0}不能为空"),
    PARAMETER_WRONG: ("Parameter {0} error", "参数{0}错误"),
    NO_SYMBOL: ("Parameter {0} does not exist", "参数{0}不存在"),
    KEY_UNKNOWN: ("Apikey does not exist", "Apikey不存在"),
    WINDOW_PASSED: (
        "Timestamp for this request is outside of the ME receiveWindow.",
        "请求时间超出receiveWindow",
    ),
    WINDOW_TOO_LONG: ("receiveWindow timestamp must be less than 60s", "receiveWindow必须小于60秒"),
    UNIFIED_ACCOUNT: (
        "You are in Unified Account mode, and the Classic Account API is not supported at this time",
        "您处于统一账户模式 暂不支持经典账户接口",
    ),
    WRONG_ENVIRONMENT: ("exchange environment is incorrect", "交易环境不正确"),
    NO_DATA: (
        "The data of the order cannot be found, please confirm the order number",
        "查询不到订单数据 请确认订单号",
    ),
    CLIENT_ID_FORM: (
        "clientOid or clientOrderId length cannot greater than 64, and cannot be Martian characters",
        "clientOid长度不能超过64 且不能含有特殊字符",
    ),
    URL_UNKNOWN: ("Request URL NOT FOUND", "请求路径不存在"),
    BATCH_TOO_LARGE: ("single cancel cannot exceed 50", "单次撤单不能超过50"),
    ID_MISSING: ("orderId and clientOid must have one", "orderId和clientOid必须有一个"),
    NO_ORDER: ("The order does not exist", "订单不存在"),
    NO_TPSL: ("Stop profit and stop loss order does not exist", "止盈止损单不存在"),
    TPSL_CLOSED: ("The stop-profit and stop-loss order has been closed", "止盈止损单已关闭"),
    NO_PLAN: ("Plan order does not exist", "计划委托不存在"),
    PLAN_CLOSED: ("The planned order has been closed", "计划委托已关闭"),
    CLIENT_ID_TAKEN: ("clientOrderId duplicate", "clientOrderId重复"),
    CANCEL_FAILED: ("Cancel order error", "撤单失败"),
    TOO_SOON: (
        "Cancel order is too frequent, the same orderId is only allowed to be canceled once in a second",
        "撤单过于频繁 同一订单每秒只能撤销一次",
    ),
}


class Refusal(Exception):
    """The whole call is refused with this code; `about` is what its text names."""

    def __init__(self, code: str, about: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.about = about


def text_of(code: str, about: str, english: bool) -> str:
    texts = TEXTS.get(code)
    if texts is None:
        return "Unknown error" if english else "未知错误"
    return texts[0 if english else 1].replace("{0}", about).rstrip()
