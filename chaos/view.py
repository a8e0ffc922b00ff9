"""What a run looks like while it goes on, and what it came to, for people and as JSON."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table

from chaos.recovery import Recovery, recoveries
from chaos.usage import Progress, Report

SHOWN_MAX = 20
#: Progress goes where it does not stand between a program and our JSON.
aside = Console(stderr=True)


@contextmanager
def watched(name: str) -> Iterator[Progress]:
    """Say how far a run is: on a terminal in place, elsewhere a line for each phase."""
    began = time.monotonic()
    phases: list[str] = []
    with aside.status(f"{name}: servers") as status:

        def tell(phase: str, charged: int, faults: int) -> None:
            said = f"{name}: {phase}, {time.monotonic() - began:.0f} s, {charged:,} events charged, {faults} faults"
            status.update(said)
            if not aside.is_terminal and phase not in phases:
                phases.append(phase)
                aside.print(said)

        yield Progress(tell)


def show(report: Report, console: Console) -> None:
    """Tables of what was expected and found, of faults and recoveries, and every difference up to a bound."""
    verdict, options = report.verdict, report.options
    table = Table("", "expected", "found", title=f"seed {options.seed} on {options.broker}", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for total in verdict.totals:
        style = "" if total.expected == total.actual else "red"
        table.add_row(total.name, f"{total.expected:,f}", f"{total.actual:,f}", style=style)
    console.print(table)
    show_recoveries([report], console)
    for difference in verdict.differences[:SHOWN_MAX]:
        console.print(str(difference), style="red", soft_wrap=True, markup=False)
    if (more := len(verdict.differences) - SHOWN_MAX) > 0:
        console.print(f"and {more} more", style="red")
    for problem in report.problems:
        console.print(f"problem: {problem}", style="red", soft_wrap=True, markup=False)
    calmed = ", ".join(f"{what} after {seconds} s" for what, seconds in report.calmed.items())
    console.print(f"quiet: {calmed}", soft_wrap=True, highlight=False)
    if not report.is_finished:
        console.print("unfinished: some of what differs may still be under way", style="red")
    style = "bold green" if report.holds else "bold red"
    console.print(_summary(report), style=style, soft_wrap=True, highlight=False)


def show_recoveries(reports: Sequence[Report], console: Console) -> None:
    """How long each kind of fault took to get over, in all of these runs."""
    title = "seconds that a fault lasted, and from when it was over, of those that stood alone"
    columns = ("fault", "times", "alone", "lasted", "worst", "first commit", "worst", "all back", "worst")
    table = Table(*columns, title=title, box=None, pad_edge=False, collapse_padding=True)
    table.title_justify = "left"
    for column in table.columns[1:]:
        column.justify = "right"
    for one in _recoveries(reports):
        seconds = (
            *(one.lasted_median, one.lasted_max),
            *(one.first_median, one.first_max),
            *(one.back_median, one.back_max),
        )
        said = ["–" if value is None else f"{value:.2f}" for value in seconds]
        table.add_row(one.kind, str(one.times), str(one.alone), *said)
    console.print(table)


def _recoveries(reports: Sequence[Report]) -> list[Recovery]:
    kinds = [fault.kind for report in reports for fault in report.faults]
    return recoveries(kinds, [sample for report in reports for sample in report.samples])


def _summary(report: Report) -> str:
    verdict, kinds = report.verdict, report.verdict.by_kind
    others = sum(count for kind, count in kinds.items() if kind not in {"lost", "doubled", "cents"})
    rate = report.recorded / (report.load_seconds + report.quiet_seconds)
    return (
        f"seed {report.options.seed} on {report.options.broker}: {report.recorded:,} events recorded of "
        f"{verdict.emitted:,} emitted ({verdict.duplicates:,} again, {verdict.conflicts} conflicts, "
        f"{verdict.undecided} undecided by a kill), {len(report.faults)} faults of which {_idle(report)} hit nothing, "
        f"{report.wiped} messages wiped, "
        f"{report.resent} sent again, {verdict.several:,} debits in parts, {_desk(report)}: {kinds['lost']} lost, "
        f"{kinds['doubled']} doubled, {verdict.cents:f} of difference in wallets, {kinds['cents']} entries and "
        f"wallets off, {report.captured_twice} payments captured twice, {others} other differences, "
        f"{report.audit_differences} in the audit, {len(report.problems)} problems; {report.seconds:.0f} s "
        f"(load {report.load_seconds:.0f}, quiet {report.quiet_seconds:.0f}, comparing {report.compare_seconds:.0f}; "
        f"{rate:,.0f} events/s)"
    )


def _desk(report: Report) -> str:
    holds, counted = report.verdict.holds_there, report.verdict.counted
    return (
        f"{holds.granted.total()} holds, {holds.marks.total()} captures of which {holds.marks['whole']} whole, "
        f"{counted.warnings} thresholds of quotas told, {counted.marked:,} events over one "
        f"({counted.undecided:,} undecided), {report.archived} events archived by an archiver that died "
        f"{report.archiver_deaths} times"
    )


def _idle(report: Report) -> int:
    return sum(fault.hit_nothing for fault in report.faults)


def as_dict(report: Report) -> dict[str, Any]:
    """The same for programs."""
    verdict = report.verdict
    return {
        "holds": report.holds,
        "is_finished": report.is_finished,
        "options": asdict(report.options),
        "recorded": report.recorded,
        "emitted": verdict.emitted,
        "duplicates": verdict.duplicates,
        "conflicts": verdict.conflicts,
        "undecided": verdict.undecided,
        "undecided_found": verdict.undecided_found,
        "differences": dict(verdict.by_kind),
        "lost": verdict.by_kind["lost"],
        "doubled": verdict.by_kind["doubled"],
        "value_difference": str(verdict.cents),
        "captured_twice": report.captured_twice,
        "audit_differences": report.audit_differences,
        "problems": report.problems,
        "totals": {one.name: {"expected": str(one.expected), "found": str(one.actual)} for one in verdict.totals},
        "shown": [str(one) for one in verdict.differences[:SHOWN_MAX]],
        "faults": dict(Counter(one.kind for one in report.faults)),
        "held": report.verdict.holds_there.granted.total(),
        "captures": dict(report.verdict.holds_there.marks),
        "thresholds": report.verdict.counted.warnings,
        "over_quota": report.verdict.counted.marked,
        "over_quota_undecided": report.verdict.counted.undecided,
        "archived": report.archived,
        "archiver_deaths": report.archiver_deaths,
        "fault_log": [asdict(one) for one in report.faults],
        "recoveries": [asdict(one) for one in _recoveries([report])],
        "hit_nothing": _idle(report),
        "wiped": report.wiped,
        "resent": report.resent,
        "calmed": report.calmed,
        "seconds": {
            "all": round(report.seconds, 1),
            "load": round(report.load_seconds, 1),
            "quiet": round(report.quiet_seconds, 1),
            "comparing": round(report.compare_seconds, 1),
        },
    }


def show_all(reports: Sequence[Report], console: Console) -> None:
    """What several runs came to."""
    show_recoveries(reports, console)
    held = sum(report.holds for report in reports)
    recorded = sum(report.recorded for report in reports)
    lost, doubled = (sum(report.verdict.by_kind[kind] for report in reports) for kind in ("lost", "doubled"))
    cents = sum((report.verdict.cents for report in reports), Decimal(0))
    twice = sum(report.captured_twice for report in reports)
    console.print(
        f"{held} of {len(reports)} runs hold: {recorded:,} events recorded, {lost} lost, {doubled} doubled, "
        f"{cents:f} of difference, {twice} payments captured twice",
        style="bold green" if held == len(reports) else "bold red",
    )


def as_json(reports: list[Report]) -> None:
    """All runs, as one JSON array, to standard output."""
    json.dump([as_dict(report) for report in reports], sys.stdout, indent=2)
    sys.stdout.write("\n")
