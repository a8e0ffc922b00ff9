"""Traces of LLM usage: read from a file, generated, moved in time.

The file format is that of the Azure LLM inference traces (Patel et al., "Splitwise: Efficient generative LLM
inference using phase splitting", ISCA 2024; CC-BY 4.0)::

    TIMESTAMP,ContextTokens,GeneratedTokens
    2023-11-16 18:17:03.9799600,4808,10

A generated trace has the shape of the code-completion trace of 2023: 8,819 requests within an hour. Its three
columns are drawn independently, as the correlation of the two token counts is 0.001 there, and the gaps between
requests hardly depend on one another (0.1). Each is a mixture of log-normals, rounded and cut to the range that
was observed; the parameters stand next to the code. How close that comes, over 200,000 generated rows:

==================== ======== ========= ======== ======== ========
column                            mean      p50      p90      p99
==================== ======== ========= ======== ======== ========
context tokens       trace     2,047.8    1,469    5,194    7,436
..                   drawn     2,052      1,481    4,965    7,437
generated tokens     trace        27.9       13       55      252
..                   drawn        27.6       13       57      240
gap (seconds)        trace       0.390    0.064    0.273     2.21
..                   drawn       0.384    0.060    0.239     3.6
==================== ======== ========= ======== ======== ========
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from math import exp
from pathlib import Path
from typing import NamedTuple

HEADER = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
FIRST_GENERATED_AT = datetime(2023, 11, 16, 18, 0, tzinfo=UTC)

_MICROSECOND = timedelta(microseconds=1)


class TraceRow(NamedTuple):
    """One request: when it occurred (UTC, with zone), and the tokens that went in and came out."""

    occurred_at: datetime
    context_tokens: int
    generated_tokens: int


class TraceError(ValueError):
    """A trace file that can't be read; the message names file, line and value."""


def read_trace(path: Path) -> list[TraceRow]:
    """Reads a whole trace file, in the order of its lines.

    Timestamps without a zone are UTC; what is finer than a microsecond is cut off. Raises ``TraceError`` at the
    first bad line, and when there is no row at all.
    """
    with path.open(encoding="utf-8-sig") as lines:
        header = lines.readline().strip()
        if header.split(",") != HEADER:
            raise TraceError(f"{path}, line 1: the header must be {','.join(HEADER)!r}, not {header!r}")
        rows = [_parsed(line.strip(), f"{path}, line {n}") for n, line in enumerate(lines, 2) if line.strip()]
    if not rows:
        raise TraceError(f"{path}: there is no row after the header")
    return rows


def _parsed(line: str, where: str) -> TraceRow:
    fields = line.split(",")
    if len(fields) != len(HEADER):
        raise TraceError(f"{where}: expected {len(HEADER)} fields ({', '.join(HEADER)}), found {line!r}")
    return TraceRow(
        _parsed_time(fields[0], where),
        _parsed_tokens(HEADER[1], fields[1], where),
        _parsed_tokens(HEADER[2], fields[2], where),
    )


def _parsed_time(text: str, where: str) -> datetime:
    try:
        # Python reads any number of digits after the point, and keeps six.
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise TraceError(f"{where}: {HEADER[0]} must be like '2023-11-16 18:17:03.9799600', not {text!r}") from None


def _parsed_tokens(name: str, text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise TraceError(f"{where}: {name} must be a whole number from 0 to 10^18, not {text[:40]!r}")
    return int(text)


class _LogNormals(NamedTuple):
    """A mixture of log-normals: for each its share, and mean and deviation of the logarithm."""

    shares: Sequence[float]
    means: Sequence[float]
    deviations: Sequence[float]
    smallest: float
    largest: float


# Fitted to the logarithms by expectation maximisation, then nudged towards the observed means.
# Context: 3.8 % of the requests sit at the limit of the model's window; the rest are short or long prompts.
_CONTEXT_AT_LIMIT_SHARE = 0.038
_CONTEXT_AT_LIMIT_TOKENS = 7436
_CONTEXT = _LogNormals((0.324, 0.676), (5.53, 7.60), (1.295, 0.68), 3, 7437)
# Generated tokens, less four (the shortest answer has six): completions of a line, and of a block.
_GENERATED_OFFSET = 4
_GENERATED = _LogNormals((0.65, 0.35), (1.857, 3.32), (0.69, 1.13), 2, 1895)
# Gaps in seconds: three speeds inside a burst, the usual tenth of a second and less usual ones, and silences.
_GAPS = _LogNormals(
    (0.118, 0.21, 0.445, 0.222, 0.005),
    (-9.2, -6.2, -2.145, -3.1, 3.12),
    (1.06, 0.72, 0.56, 2.2, 1.2),
    1e-6,
    217.2,
)


def generate_trace(count: int, seed: int, *, first_at: datetime = FIRST_GENERATED_AT) -> list[TraceRow]:
    """Draws a trace of ``count`` rows in order of time, the first at ``first_at``; the same for the same seed.

    About 9,200 rows make an hour. The distributions are described at the top of this module.
    """
    rng = random.Random(seed)
    context = [
        _CONTEXT_AT_LIMIT_TOKENS if rng.random() < _CONTEXT_AT_LIMIT_SHARE else round(tokens)
        for tokens in _drawn(rng, _CONTEXT, count)
    ]
    generated = [_GENERATED_OFFSET + round(tokens) for tokens in _drawn(rng, _GENERATED, count)]
    seconds = accumulate(_drawn(rng, _GAPS, count - 1), initial=0.0)
    first = first_at.astimezone(UTC)
    times = (first + timedelta(seconds=after) for after in seconds)
    return list(map(TraceRow, times, context, generated))


def _drawn(rng: random.Random, mixture: _LogNormals, count: int) -> list[float]:
    smallest, largest = mixture.smallest, mixture.largest
    components = list(zip(mixture.means, mixture.deviations, strict=True))
    chosen = rng.choices(components, weights=mixture.shares, k=max(count, 0))
    return [min(largest, max(smallest, exp(rng.gauss(mean, deviation)))) for mean, deviation in chosen]


def shift_into(rows: Sequence[TraceRow], window_start: datetime, window_end: datetime) -> list[TraceRow]:
    """Moves rows in time so that the last falls on ``window_end``; order and spacing stay as they are.

    Rows that span more than the window are squeezed into all of it, evenly. No row ever lies outside
    ``[window_start, window_end]``, to the microsecond. Raises ``ValueError`` for a window without zones, or one
    that ends before it starts.
    """
    if window_start.tzinfo is None or window_end.tzinfo is None:
        raise ValueError(f"the window needs a time zone: {window_start} to {window_end}")
    if window_end < window_start:
        raise ValueError(f"the window ends before it starts: {window_start} to {window_end}")
    if not rows:
        return []
    first = min(row.occurred_at for row in rows)
    last = max(row.occurred_at for row in rows)
    window = window_end - window_start
    end = window_end.astimezone(UTC)
    if last - first <= window:
        return [row._replace(occurred_at=end - (last - row.occurred_at)) for row in rows]
    # In whole microseconds: floats could leave the window by one.
    window_us, trace_us = window // _MICROSECOND, (last - first) // _MICROSECOND
    before_end = [(last - row.occurred_at) // _MICROSECOND * window_us // trace_us for row in rows]
    return [
        row._replace(occurred_at=end - timedelta(microseconds=us)) for row, us in zip(rows, before_end, strict=True)
    ]
