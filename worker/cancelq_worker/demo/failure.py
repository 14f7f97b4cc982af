"""The one way the demo itself fails, as opposed to an audit that finds something."""


class DemoFailed(Exception):
    """The demo cannot go on; the message says why and may have several lines."""
