"""`python -m chaos`: what it tries, and what came of it. Exit status 1 if anything came out wrong."""

import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from chaos import matrix, usage, view
from chaos import storm as storms
from chaos.brokers import BrokerKind
from chaos.ground import ground, keep_database
from config import logging
from sandbox.rabbitmq import rabbitmq_missing
from services.oversight.audit import audit

app = typer.Typer(help="Kill real processes at the worst moments; compare what is there with what had to be.")
console = Console()
SHOWN_MAX = 20
#: Slots are given out by Postgres, calls arrive a moment later.
PACE_TOLERANCE = 1.1


@app.callback(invoke_without_command=True)
def usage_under_faults(
    context: typer.Context,
    seed: Annotated[int, typer.Option(min=0, help="Of events and faults; 0: any.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="So many runs, with this seed and those that follow it.")] = 1,
    minutes: Annotated[float, typer.Option(min=0.05, help="How long events are emitted while faults happen.")] = 1.0,
    events: Annotated[int, typer.Option(min=0, help="So many events recorded at least, instead of minutes.")] = 0,
    broker: Annotated[BrokerKind, typer.Option(help="On which broker.")] = "valkey",
    shards: Annotated[int, typer.Option(min=1, max=64, help="Queues of usage; producers disagree.")] = 3,
    short: Annotated[bool, typer.Option("--short", help="One fault right after the other, without a rest.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Without a command: usage from producers to Stripe, while everything goes wrong; then an oracle judges it.

    Exit status 1 if an event is lost, charged twice or charged wrongly, or a payment is.
    """
    logging.configure("CRITICAL" if context.invoked_subcommand is None else "ERROR")
    if context.invoked_subcommand is not None:
        return
    if broker == "rabbitmq" and (why := rabbitmq_missing()):
        raise typer.BadParameter(why)
    first = seed or random.SystemRandom().randrange(1, 1_000_000)
    reports = []
    for number in range(first, first + seeds):
        options = usage.Options(number, broker, minutes * 60, events, shards=shards)
        if short:
            options = replace(options, is_short=True, visibility_seconds=3, events_per_second=1500.0)
        with view.watched(f"seed {number} on {broker}") as progress:
            reports.append(usage.run(options, progress))
        view.show(reports[-1], view.aside if json else console)
    if len(reports) > 1:
        view.show_all(reports, view.aside if json else console)
    if json:
        view.as_json(reports)
    raise typer.Exit(0 if all(report.holds for report in reports) else 1)


@app.command()
def collecting(
    number: Annotated[int, typer.Option("--sample", help="Only so many combinations; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
) -> None:
    """The crash matrix: SIGKILL at every point, whatever Stripe answers, whenever its webhook comes."""
    chosen = seed or random.SystemRandom().randrange(1, 1_000_000)
    wanted = matrix.sample(number, chosen) if number else matrix.combinations()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="centavo-chaos-") as folder, Progress(console=console) as progress:
        task = progress.add_task("combinations", total=len(wanted))
        home = Path(folder)
        home.chmod(0o711)
        settings = {"unknown_again_seconds": 1, "payment_lease_seconds": 10, "payments_per_second": 100}
        with ground(home, **settings, visibility_timeout_seconds=5, customer_day_payments_max=1000) as made:
            made.start_worker()
            made.start_api()
            failures = list(matrix.run(made, wanted, lambda: progress.advance(task)))
            differences = audit().differences
    seconds = time.monotonic() - began
    for line in matrix.counted(failures):
        console.print(f"[red]failed[/] {line}", soft_wrap=True)
    console.print(
        f"{len(wanted)} combinations (seed {chosen if number else 'none'}) in {seconds:.0f} s: "
        f"{len(failures)} failed, {differences} differences in the audit"
    )
    raise typer.Exit(1 if failures or differences else 0)


@app.command()
def storm(
    payments: Annotated[int, typer.Option(min=20, help="Payments due at once.")] = 5000,
    pace: Annotated[int, typer.Option(min=1, max=100, help="Payments a second that may be begun.")] = 50,
    kills: Annotated[int, typer.Option(min=0, help="How often a worker is killed.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the faults.")] = 0,
) -> None:
    """Everything falls due at once, a tenth declines, answers get lost, workers die; then the database is put back."""
    chosen = seed or random.SystemRandom().randrange(1, 1_000_000)
    settings = {"unknown_again_seconds": 5, "payment_lease_seconds": 20, "payments_per_second": pace}
    with tempfile.TemporaryDirectory(prefix="centavo-chaos-") as folder, Progress(console=console) as progress:
        home = Path(folder)
        home.chmod(0o711)
        with ground(home, **settings, visibility_timeout_seconds=10) as made:
            task = progress.add_task("customers and cards", total=payments)
            due = storms.prepare(payments, chosen, lambda: progress.advance(task))
            keep_database(made)
            made.start_api()
            storms.brew(made, chosen)
            raging = progress.add_task("storm", total=payments)
            first = storms.rage(made, due, kills, lambda done: progress.update(raging, completed=done))
            put_back = progress.add_task("the database put back", total=payments)
            second = storms.again(made, due, lambda done: progress.update(put_back, completed=done))
            differences = audit().differences
    wrong = [*_told("the storm", first, pace), *_told("the database put back", second, pace)]
    console.print(f"seed {chosen}; {differences} differences in the audit at the end")
    raise typer.Exit(1 if wrong or differences else 0)


def _told(name: str, storm: storms.Storm, pace: int) -> list[str]:
    """Say what came of it; what was wrong."""
    said = ", ".join(f"{count} {state}" for state, count in sorted(storm.by_state.items()))
    wrong = list(storm.wrong)
    if storm.confirms_per_second_max > pace * PACE_TOLERANCE:
        wrong.append(f"{storm.confirms_per_second_max:.1f} payments a second were confirmed; the pace is {pace}")
    console.print(
        f"{name}: {storm.payments} payments in {storm.seconds:.0f} s, {storm.kills} kills: {said}; "
        f"{storm.confirms_per_second_max:.1f} a second at most (pace {pace}); {len(wrong)} wrong"
    )
    for line in wrong[:SHOWN_MAX]:
        console.print(f"[red]wrong[/] {line}", soft_wrap=True)
    return wrong


if __name__ == "__main__":
    app()
