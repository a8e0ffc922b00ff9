"""How a simulated year looks: progress while it goes by, tables and a chart at its end, and the same as JSON."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from billing.money import written
from cli.show import a_table, console
from db.happened import MonthSum
from sandbox.year import Progress, Report, Watch

DIFFERENCES_SHOWN_MAX = 20
#: One table from this width on; two on a smaller terminal.
WIDE = 136
CHART_WIDTH_MAX = 120
LABELS_WIDTH = 34
COLLECTED, OWED = ("█", "green"), ("▒", "yellow")


@contextmanager
def live() -> Iterator[Watch]:
    """Show how far the year is: as a bar on a terminal, as a line for each month elsewhere."""
    if not console.is_terminal:
        yield Watch(_say_step, _Lines().on_progress)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console) as bar:
        passing = bar.add_task("", total=None, visible=False)

        def on_progress(done: Progress) -> None:
            said = f"{done.at:%Y-%m-%d}  {done.customers:,} customers, {done.events:,} events"
            outage = "  outage" if done.is_outage else ""
            bar.update(passing, description=said + outage, total=done.steps, completed=done.steps_done, visible=True)

        yield Watch(_say_step, on_progress)


def _say_step(step: str) -> None:
    console.print(f"· {step}")


class _Lines:
    """Progress for a log: a line for each month that has begun."""

    def __init__(self) -> None:
        self._month = ""

    def on_progress(self, done: Progress) -> None:
        month = f"{done.at:%Y-%m}"
        if month != self._month:
            self._month = month
            console.print(f"  {month}: {done.customers:,} customers, {done.events:,} events, {done.ticks:,} ticks said")


def show(report: Report) -> None:
    """What happened month by month, the chart, and the verdict."""
    console.print()
    for table in _tables(report.months):
        console.print(table)
        console.print()
    for line in _chart(report.months, min(console.width, CHART_WIDTH_MAX)):
        console.print(line)
    console.print()
    _say_what_was_done(report)
    for difference in report.difference_list[:DIFFERENCES_SHOWN_MAX]:
        console.print(difference, style="red")
    left = report.differences - DIFFERENCES_SHOWN_MAX
    if left > 0:
        console.print(f"… and {left:,} differences more", style="red")
    style = "bold green" if report.holds else "bold red"
    console.print(f"{_of_steady(report)}, {report.differences:,} differences", style=style)


def _of_steady(report: Report) -> str:
    fees, resets = report.fees_and_resets
    steady, months = len(report.steady), report.year.options.months
    each = f"{months} fees and {months} resets each"
    if (fees, resets) != (steady * months, steady * months):
        each = f"{fees:,} fees and {resets:,} resets, instead of {each}"
    return f"{steady:,} steady customers: {each}"


def _say_what_was_done(report: Report) -> None:
    begins_at, ends_at = report.year.outage
    steps = [step for step in report.year.steps if step.times]
    skipped = sum(not times for step in steps for times in step.times.values())
    doubled = sum(times > 1 for step in steps for times in step.times.values())
    statements = sum(month.statements for month in report.months)
    options, checks = report.year.options, len(report.audit.checks)
    console.print(f"{sum(report.said.values()):,} ticks said, {skipped:,} left out, {doubled:,} said twice")
    console.print(f"no tick at all from {begins_at:%Y-%m-%d} to {ends_at:%Y-%m-%d}")
    console.print(f"{statements:,} statements; {checks} checks of the audit")
    console.print(f"{report.seconds:,.0f} s for {options.months} months, seed {options.seed}")


_Column = tuple[str, Any]
"""The head of a column, and how a month's cell is written."""

_USAGE: Sequence[_Column] = (
    ("customers", lambda one: f"{one.customers:,}"),
    ("events", lambda one: f"{one.events:,}"),
    ("late", lambda one: f"{one.late:,}"),
    ("tokens", lambda one: _short(one.tokens)),
    ("credits given", lambda one: f"{one.credits_given:,.0f}"),
    ("broken", lambda one: f"{one.broken:,.0f}"),
    ("statements", lambda one: f"{one.statements:,}"),
)
_MONEY: Sequence[_Column] = (
    ("fees due", lambda one: f"{one.fees:,}"),
    ("collected", lambda one: f"{one.fees_collected:,}"),
    ("tiers", lambda one: f"{one.tiers:,}"),
    ("declined", lambda one: f"{one.declined:,}"),
    ("BRL collected", lambda one: _brl(one.collected_minor)),
    ("owed at its end", lambda one: _brl(one.owed_minor)),
)


def _tables(months: Sequence[MonthSum]) -> Iterator[Table]:
    groups = [(*_USAGE, *_MONEY)] if console.width >= WIDE else [_USAGE, _MONEY]
    for columns in groups:
        heads = tuple(head for head, _ in columns)
        table = a_table("month", *heads, numbers=heads)
        for one in months:
            table.add_row(f"{one.month:%Y-%m}", *(cell(one) for _, cell in columns))
        yield table


def _short(number: int) -> str:
    """A large number in few characters.

    >>> _short(975_600_000), _short(1_013_028_821)
    ('976M', '1,013M')
    """
    return f"{number / 1_000_000:,.0f}M"


def _brl(minor: int) -> str:
    """Minor units without the currency, for a column that names it.

    >>> _brl(4_795_050)
    '47,950.50'
    """
    return f"{Decimal(minor).scaleb(-2):,.2f}"


def _chart(months: Sequence[MonthSum], width: int) -> Iterator[Text]:
    """A bar for each month: what was collected, and beside it what was still owed at its end."""
    yield Text.assemble(COLLECTED, " collected  ", OWED, " owed at the month's end")
    most = max((one.collected_minor + one.owed_minor for one in months), default=0) or 1
    room = max(10, width - LABELS_WIDTH)
    for one in months:
        collected, owed = (_cells(minor, most, room) for minor in (one.collected_minor, one.owed_minor))
        bars = [(mark * cells, style) for (mark, style), cells in ((COLLECTED, collected), (OWED, owed))]
        said = f"  {_brl(one.collected_minor)}" + (f" + {_brl(one.owed_minor)}" if one.owed_minor else "")
        yield Text.assemble(f"{one.month:%Y-%m} ", *bars, said)


def _cells(minor: int, most: int, room: int) -> int:
    """How long a bar is; whatever is there is seen."""
    return max(1, round(minor * room / most)) if minor else 0


def as_json(report: Report) -> bytes:
    """The report for programs. Decimals are strings, money whole minor units."""
    options, (begins_at, ends_at) = report.year.options, report.year.outage
    fees, resets = report.fees_and_resets
    document = {
        "months": options.months,
        "customers": options.customers,
        "seed": options.seed,
        "zones": sorted({person.zone for person in report.year.people}),
        "steady_customers": len(report.steady),
        "fees_of_steady": fees,
        "resets_of_steady": resets,
        "ticks_said": dict(report.said),
        "steps": len(report.year.steps),
        "outage": [begins_at.isoformat(), ends_at.isoformat()],
        "by_month": [_month(one) for one in report.months],
        "differences": report.differences,
        "difference_list": report.difference_list,
        "audit": report.audit.checks,
        "seconds": round(report.seconds, 1),
        "holds": report.holds,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _month(one: MonthSum) -> dict[str, Any]:
    said = one._asdict() | {"month": f"{one.month:%Y-%m}"}
    return {name: written(value) if isinstance(value, Decimal) else value for name, value in said.items()}
