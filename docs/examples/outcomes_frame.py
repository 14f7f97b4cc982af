"""Feeds a pandas frame with the outcomes of some lanes, and prints how they ended.

    python docs/examples/outcomes_frame.py redis://127.0.0.1:6379/0 bitget:main bybit:main

Reads what there is from the beginning, as the consumer `frame-1` of the group `frame`; run again, it goes on where it
stood. Needs pandas, which cancelq itself does not.
"""

import sys
from collections.abc import Sequence

import pandas as pd

from cancelq.contract import Event
from cancelq.results import ResultsReader

COLUMNS = ["lane", "id", "status", "symbol", "order_id", "filled", "queued", "settled"]


def row(event: Event) -> dict[str, object]:
    """One line of the frame. Ids and quantities stay text: an order id does not fit a float."""
    return {
        "lane": f"{event.venue}:{event.account}",
        "id": event.id,
        "status": event.status.value,
        "symbol": event.symbol,
        "order_id": event.order_id,
        "filled": event.filled,
        "queued": pd.to_datetime(event.queued_us, unit="us", utc=True),
        "settled": pd.to_datetime(event.settled_us, unit="us", utc=True),
    }


def outcomes(url: str, lanes: Sequence[str]) -> pd.DataFrame:
    """The final events of these lanes that this consumer has not seen yet, one row for each."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    with ResultsReader(url, lanes, group="frame", consumer="frame-1", start="0") as reader:
        while deliveries := reader.read(wait_s=0):
            for delivery in deliveries:
                if delivery.event.final:
                    # By lane and id: an event may come twice, and the later one counts.
                    rows[str(delivery.lane), delivery.event.id] = row(delivery.event)
            reader.ack(deliveries)
    return pd.DataFrame(list(rows.values()), columns=COLUMNS).set_index(["lane", "id"])


def main(arguments: Sequence[str]) -> None:
    """Prints the frame's summary."""
    url, *lanes = arguments
    frame = outcomes(url, lanes)
    frame["seconds"] = (frame["settled"] - frame["queued"]).dt.total_seconds()
    print(frame.groupby(["lane", "status"])["seconds"].describe()[["count", "50%", "max"]])


if __name__ == "__main__":
    main(sys.argv[1:])
