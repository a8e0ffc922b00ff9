"""Traces are read exactly, generated in the shape of real ones, and moved without leaving their window."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from statistics import fmean, quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.trace import FIRST_GENERATED_AT, TraceError, TraceRow, generate_trace, read_trace, shift_into

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"

# Mean, median and 90th percentile of the Azure LLM inference trace 2023, code completion: 8,819 requests
# (Patel et al., ISCA 2024), and how far a generated trace may be off.
REFERENCE_CONTEXT = (2047.85, 1469, 5194)
REFERENCE_GENERATED = (27.88, 13, 55)
REFERENCE_GAP_SECONDS = (0.3897, 0.0638, 0.273)
TOLERANCE_TOKENS = 0.06
TOLERANCE_GAPS = 0.15


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return path


def at(second: float) -> datetime:
    return datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=second)


def rows_at(*seconds: float) -> list[TraceRow]:
    return [TraceRow(at(second), n, n) for n, second in enumerate(seconds)]


def test_a_file_is_read_with_seven_digits_of_a_second_and_utc_times(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"{HEADER}2023-11-16 18:17:03.9799607,4808,10\n2023-11-16 18:17:04,3180,8\n2023-11-16 19:17:05+01:00,0,0\n\n",
    )

    rows = read_trace(path)

    assert rows == [
        TraceRow(datetime(2023, 11, 16, 18, 17, 3, 979960, UTC), 4808, 10),
        TraceRow(datetime(2023, 11, 16, 18, 17, 4, 0, UTC), 3180, 8),
        TraceRow(datetime(2023, 11, 16, 18, 17, 5, 0, UTC), 0, 0),
    ]
    assert {row.occurred_at.tzinfo for row in rows} == {UTC}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("yesterday,1,1", "line 3: TIMESTAMP must be like .* not 'yesterday'"),
        ("0001-01-01 00:00:00+10:00,1,1", "line 3: TIMESTAMP must be like"),
        ("2023-11-16 18:17:04,-5,1", "line 3: ContextTokens must be a whole number.* not '-5'"),
        ("2023-11-16 18:17:04,1,1.5", "line 3: GeneratedTokens must be a whole number.* not '1.5'"),
        ("2023-11-16 18:17:04,1,", "line 3: GeneratedTokens must be a whole number.* not ''"),
        (f"2023-11-16 18:17:04,{'9' * 5000},1", "line 3: ContextTokens must be a whole number"),
        ("2023-11-16 18:17:04,1", "line 3: expected 3 fields .* found '2023-11-16 18:17:04,1'"),
    ],
    ids=["no time", "before time", "negative", "fraction", "empty", "huge", "short"],
)
def test_a_bad_row_is_reported_with_its_line_and_value(tmp_path: Path, line: str, complaint: str) -> None:
    path = written(tmp_path, f"{HEADER}2023-11-16 18:17:03,1,1\n{line}\n")

    with pytest.raises(TraceError, match=complaint):
        read_trace(path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "line 1: the header"), ("time,in,out\n", "not 'time,in,out'"), (HEADER, "no row")],
    ids=["empty", "other columns", "header alone"],
)
def test_a_file_that_is_no_trace_is_reported(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(TraceError, match=complaint):
        read_trace(written(tmp_path, text))


def shape(values: Sequence[float]) -> tuple[float, float, float]:
    deciles = quantiles(values, n=10)
    return fmean(values), deciles[4], deciles[8]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_generated_trace_has_the_shape_of_the_real_one(seed: int) -> None:
    rows = generate_trace(60_000, seed)
    gaps = [(later.occurred_at - earlier.occurred_at).total_seconds() for earlier, later in pairwise(rows)]

    assert shape([row.context_tokens for row in rows]) == pytest.approx(REFERENCE_CONTEXT, rel=TOLERANCE_TOKENS)
    assert shape([row.generated_tokens for row in rows]) == pytest.approx(REFERENCE_GENERATED, rel=TOLERANCE_TOKENS)
    assert shape(gaps) == pytest.approx(REFERENCE_GAP_SECONDS, rel=TOLERANCE_GAPS)
    assert (min(row.context_tokens for row in rows), max(row.context_tokens for row in rows)) == (3, 7437)
    assert min(row.generated_tokens for row in rows) == 6
    assert max(row.generated_tokens for row in rows) <= 1899


def test_the_same_seed_gives_the_same_trace_and_another_seed_another() -> None:
    assert generate_trace(500, 7) == generate_trace(500, 7)
    assert generate_trace(500, 7) != generate_trace(500, 8)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_generated_trace_has_as_many_rows_as_asked_for_from_its_first_moment_on(count: int) -> None:
    rows = generate_trace(count, 1)

    assert len(rows) == count
    assert [row.occurred_at for row in rows[:1]] == [FIRST_GENERATED_AT][:count]


def test_a_trace_that_fits_is_moved_to_the_end_of_the_window_with_its_spacing() -> None:
    assert shift_into(rows_at(0, 1, 1, 4), at(100), at(110)) == rows_at(106, 107, 107, 110)


def test_a_trace_that_is_too_long_is_squeezed_into_the_whole_window() -> None:
    assert shift_into(rows_at(0, 500, 500, 1000), at(100), at(110)) == rows_at(100, 105, 105, 110)


def test_nothing_moves_into_any_window() -> None:
    assert shift_into([], at(0), at(1)) == []


@given(
    offsets=st.lists(st.integers(0, 400 * 86_400 * 10**6), min_size=1, max_size=20),
    start=st.integers(0, 10**9),
    length=st.integers(0, 60 * 86_400 * 10**6),
)
def test_moved_rows_stay_in_the_window_and_in_order(offsets: list[int], start: int, length: int) -> None:
    rows = rows_at(*(offset / 10**6 for offset in sorted(offsets)))
    window_start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=start)
    window_end = window_start + timedelta(microseconds=length)

    moved = shift_into(rows, window_start, window_end)

    assert window_start <= moved[0].occurred_at
    assert moved[-1].occurred_at == window_end
    assert moved == sorted(moved, key=lambda row: row.occurred_at)
    assert [row.context_tokens for row in moved] == [row.context_tokens for row in rows]


def test_a_window_in_another_zone_gives_utc_times() -> None:
    sao_paulo = timezone(timedelta(hours=-3))

    moved = shift_into(rows_at(0), at(0), datetime(2026, 11, 20, 12, tzinfo=sao_paulo))

    assert [row.occurred_at.isoformat() for row in moved] == ["2026-11-20T15:00:00+00:00"]


@pytest.mark.parametrize(
    ("window_start", "window_end", "complaint"),
    [
        (at(1), at(0), "ends before it starts"),
        (at(0), at(1).replace(tzinfo=None), "needs a time zone"),
        (at(0).replace(tzinfo=None), at(1), "needs a time zone"),
    ],
    ids=["backwards", "end without zone", "start without zone"],
)
def test_a_window_that_is_none_is_refused(window_start: datetime, window_end: datetime, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        shift_into(rows_at(0), window_start, window_end)
