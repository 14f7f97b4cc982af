"""Reading what is fed: good lines become fields, bad ones a number and a field, and none stops the rest."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancelq import Lane
from cancelq_worker.cli.feed_file import MAX_LINE, Bad, Good, form_of, lines_of, read_lines

MAIN = Lane("bitget", "main")


def jsonl(text: str, lane: Lane | None = MAIN) -> list[Good | Bad]:
    return list(read_lines(lines_of(io.StringIO(text, newline="")), "jsonl", lane))


def csv(text: str, lane: Lane | None = MAIN) -> list[Good | Bad]:
    return list(read_lines(lines_of(io.StringIO(text, newline="")), "csv", lane))


class TestJsonLines:
    def test_each_line_is_an_intent(self) -> None:
        assert jsonl(
            '{"symbol": "BTCUSDT", "order_id": "1"}\n\n'
            '{"lane": "bybit:x", "scope": "symbol", "symbol": "A", "older_than_ms": 1763690000000, "x_a": ""}'
        ) == [
            Good(1, MAIN, {"symbol": "BTCUSDT", "order_id": "1"}),
            Good(
                3,
                Lane("bybit", "x"),
                {"scope": "symbol", "symbol": "A", "older_than_ms": "1763690000000", "x_a": ""},
            ),
        ]

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ('{"symbol": "A"}', "order_id: missing"),
            ('{"symbol": "A", "order_id": 121211212122}', "order_id: wants text, got int; put it in quotes"),
            ('{"symbol": "A", "ordr_id": "1"}', 'ordr_id: unknown field, did you mean "order_id"?'),
            ('{"symbol": "A", "symbol": "B", "order_id": "1"}', "symbol: given more than once"),
            ('{"symbol": "A", "order_id": "1", "lane": "bitgett:x"}', "lane: unknown venue"),
            ('{"symbol": "A", "order_id": "1", "lane": 5}', "lane: wants text"),
            ("[1, 2]", "the line is JSON, but no object"),
            ("{", "the line is no JSON"),
            ("[" * 20_000, "the line is no JSON"),
            ('{"symbol": "\udcff", "order_id": "1"}', "symbol: not understood"),
        ],
    )
    def test_a_bad_line_names_its_field_and_the_others_are_read(self, line: str, says: str) -> None:
        good = '{"symbol": "A", "order_id": "1"}'
        before, bad, after = jsonl(f"{good}\r\n{line}\r\n{good}\r\n")
        assert isinstance(bad, Bad)
        assert bad.number == 2
        assert bad.says.startswith(says)
        assert isinstance(before, Good)
        assert isinstance(after, Good)

    def test_a_line_without_a_lane_needs_one(self) -> None:
        (bad,) = jsonl('{"symbol": "A", "order_id": "1"}', None)
        assert isinstance(bad, Bad)
        assert bad.says.startswith("lane: missing")

    def test_an_endless_line_is_told_and_skipped(self) -> None:
        first, second = jsonl("x" * (3 * MAX_LINE) + '\n{"symbol": "A", "order_id": "1"}\n')
        assert first == Bad(1, f"the line is longer than {MAX_LINE} characters; one intent a line")
        assert isinstance(second, Good)
        assert second.number == 2

    @given(
        st.lists(
            st.fixed_dictionaries(
                {"symbol": st.just("BTCUSDT"), "order_id": st.from_regex(r"[0-9]{1,30}", fullmatch=True)}
            )
        )
    )
    def test_what_is_written_is_read(self, intents: list[dict[str, str]]) -> None:
        text = "".join(json.dumps(intent) + "\n" for intent in intents)
        assert jsonl(text) == [Good(number, MAIN, intent) for number, intent in enumerate(intents, 1)]

    @given(st.text())
    def test_nothing_that_is_fed_raises(self, text: str) -> None:
        for result in (*jsonl(text), *csv(text)):
            assert isinstance(result, Good | Bad)


class TestCsv:
    def test_the_header_names_the_fields_and_empty_cells_are_left_out(self) -> None:
        assert csv('symbol, order_id ,client_order_id,lane,x_a\nA,1,,,\nB,,c-1,bybit:x,"1,2"\n') == [
            Good(2, MAIN, {"symbol": "A", "order_id": "1"}),
            Good(3, Lane("bybit", "x"), {"symbol": "B", "client_order_id": "c-1", "x_a": "1,2"}),
        ]

    @pytest.mark.parametrize(
        ("header", "says"),
        [
            ("symbol,ordr_id", 'ordr_id: unknown field, did you mean "order_id"?'),
            ("BTCUSDT,121211212122", "BTCUSDT: unknown field"),
            ("symbol,order_id,symbol", "symbol: two columns have this name"),
        ],
    )
    def test_a_bad_header_is_told_once_and_nothing_is_read(self, header: str, says: str) -> None:
        (bad,) = csv(f"{header}\nA,1\nB,2\n")
        assert isinstance(bad, Bad)
        assert bad.number == 1
        assert bad.says.startswith(says)

    def test_a_line_that_was_cut_off_is_not_sent(self) -> None:
        _, cut, long = csv("symbol,order_id,reason\nA,1,x\nA,12\nA,1,x,y\n")
        assert cut == Bad(3, "the line has 2 values, the header 3 names")
        assert long == Bad(4, "the line has 4 values, the header 3 names")

    def test_a_broken_line_does_not_stop_the_rest(self) -> None:
        results = csv('symbol,order_id\n"A"x,1\nB,2\n' + "y" * (2 * MAX_LINE) + "\nC,3\n")
        assert [result.number for result in results if isinstance(result, Good)] == [3, 5]
        assert [result.number for result in results if isinstance(result, Bad)] == [2, 4]


@pytest.mark.parametrize(
    ("name", "first", "form"),
    [
        ("a.csv", "{", "csv"),
        ("a.CSV", "{", "csv"),
        ("a.jsonl", "symbol", "jsonl"),
        ("a.ndjson", "", "jsonl"),
        ("-", ' {"symbol": 1}', "jsonl"),
        ("-", "symbol,order_id", "csv"),
        ("-", "", "csv"),
    ],
)
def test_the_format_is_told_by_name_or_first_line(name: str, first: str, form: str) -> None:
    assert form_of(name, first) == form
