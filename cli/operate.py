"""Running it: migrate, emit, audit, status, and what is parked."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer
from pydantic import ValidationError
from rich.progress import Progress
from rich.table import Table

from billing.errors import Rejected
from centavo import Producer
from cli.show import AsJson, as_json, console, errors, shortened
from config import clock
from config.settings import settings
from db.migrate import migrate as migrate_database
from services import parked as parked_service
from services import reports
from services.audit import audit as run_audit
from services.envelopes import read_event
from tasks.queues import depths

app = typer.Typer()
parked = typer.Typer(help="What could not be charged.", no_args_is_help=True)

LINES_SHOWN_MAX = 10
FLUSH_SECONDS = 60.0


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    console.print(f"the database is at revision {migrate_database(settings().required('database_url'))}")


@app.command()
def emit(
    source: Annotated[str, typer.Argument(help="A file with one usage event as JSON a line, or - for standard input.")],
) -> None:
    """Send usage events to the workers; lines that are no events are named and left out (exit status 1)."""
    wrong = 0
    with Producer(settings().required("broker_url"), queue=settings().usage_queue, block_seconds=30) as producer:
        for number, line in _lines(source):
            try:
                producer.emit(read_event(line.encode()))
            except (Rejected, ValidationError) as error:
                wrong += 1
                if wrong <= LINES_SHOWN_MAX:
                    errors.print(f"line {number}: {error}", markup=False)
        unsent = producer.flush(FLUSH_SECONDS)
        emitted = producer.counters.emitted
    console.print(f"{emitted} events emitted, {unsent} of them not taken by the broker, {wrong} lines left out")
    if wrong or unsent:
        raise typer.Exit(1)


@app.command()
def audit(json: AsJson = False) -> None:
    """Check every invariant on the live database. Exit status 1 if anything does not agree."""
    if json:
        result = run_audit()
        as_json(
            {
                "differences": result.differences,
                "parked": result.parked,
                "counts": result.counts,
                "checks": result.checks,
                "shown": result.shown,
            }
        )
    else:
        table = Table("check", "differences")
        with console.status("auditing"):
            result = run_audit(lambda check, found: table.add_row(check, f"[red]{found}" if found else "[green]0"))
        console.print(table)
        for difference in result.shown:
            console.print(
                f"[red]{difference.check}[/]: {difference.subject}: "
                f"expected {difference.expected}, found {difference.actual}"
            )
        counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in result.counts.items())
        console.print(f"{counts}; [bold]{result.differences} differences")
    if result.differences:
        raise typer.Exit(1)


@app.command()
def status(json: AsJson = False) -> None:
    """Where everything is, and how far behind."""
    standing = reports.standing(clock.now())
    queues = depths()
    addresses = {
        "database": _without_password(settings().required("database_url")),
        "broker": _without_password(settings().required("broker_url")),
        "stripe": settings().stripe_api_base or "api.stripe.com",
        "environment": settings().environment,
    }
    if json:
        as_json({"addresses": addresses, "queues": queues, "database": standing})
        return
    table = Table(show_header=False)
    for name, address in addresses.items():
        table.add_row(name, address)
    table.add_row("PostgreSQL", standing.server_version)
    for queue, depth in queues.items():
        table.add_row(f"queue {queue}", f"{depth:,} messages")
    table.add_row("events charged", f"{standing.charged:,}")
    table.add_row("parked", ", ".join(f"{n:,} {reason}" for reason, n in standing.parked.items()) or "nothing")
    table.add_row("payments waiting", f"{standing.payments_waiting:,}")
    table.add_row(
        "oldest payment due", f"{standing.payment_lag_seconds:.1f} s ago" if standing.payments_waiting else "–"
    )
    console.print(table)


@parked.command("list")
def list_parked(
    reason: Annotated[str | None, typer.Option(help="Of this reason alone.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    json: AsJson = False,
) -> None:
    """What is parked, oldest first."""
    found = parked_service.waiting(reason, tenant, limit)
    if json:
        as_json([row._asdict() for row in found])
        return
    table = Table("id", "reason", "customer", "seen", "since", "why")
    for row in found:
        since = row.parked_at.isoformat(timespec="seconds")
        why = shortened(row.detail)
        table.add_row(shortened(row.parked_id, 40), row.reason, row.customer_id or "–", str(row.times_seen), since, why)
    console.print(table if found else "nothing is parked")


@parked.command("show")
def show_parked(parked_id: Annotated[str, typer.Argument(help="An id from `centavo parked list --json`.")]) -> None:
    """All that is kept of one parked thing."""
    as_json(parked_service.show(parked_id))


@parked.command("replay")
def replay_parked(
    parked_id: Annotated[str | None, typer.Argument(help="One id; bounds on size and age are waived for it.")] = None,
    reason: Annotated[str | None, typer.Option(help="Everything of this reason.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Whatever may go now.")] = False,
) -> None:
    """Try parked things again: what can be charged now is charged, once."""
    if parked_id:
        result = parked_service.replay(parked_id, clock.now())
    elif everything or reason or tenant:
        with Progress(console=errors, transient=True) as progress:
            task = progress.add_task("replaying", total=None)
            result = parked_service.replay_all(
                clock.now(),
                reason=reason,
                tenant_id=tenant,
                on_progress=lambda so_far: progress.update(task, completed=so_far.tried),
            )
    else:
        raise Rejected("say what to replay: an id, --reason, --tenant or --all")
    console.print(f"{result.tried} tried, {result.charged} charged, {result.still_parked} still parked")


def _lines(source: str) -> Iterator[tuple[int, str]]:
    if source == "-":
        yield from _numbered(sys.stdin)
        return
    path = Path(source)
    if not path.is_file():
        raise Rejected(f"there is no file {source}; give one, or - for standard input")
    with path.open() as file:
        yield from _numbered(file)


def _numbered(file: TextIO) -> Iterator[tuple[int, str]]:
    yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _without_password(url: str) -> str:
    before, at, after = url.rpartition("@")
    scheme, _, credentials = before.partition("://")
    return f"{scheme}://{credentials.partition(':')[0]}{at}{after}" if at else url
