"""Running it: `migrate`, `audit`, `status`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from cli.show import NOTHING, AsJson, a_table, as_json, console, plain, without_password
from config import clock
from config.settings import settings
from db import session
from db.migrate import migrate as migrate_database
from services.clocks import Clocks, said
from services.desk import reports
from services.desk.reports import Standing
from services.oversight.audit import CHECKS, Audit
from services.oversight.audit import audit as run_audit
from tasks.queues import Depth, looked_at

app = typer.Typer()

STANDBYS = "synchronous_standby_names"


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    url = settings().required("database_url")
    with session.transaction():
        pass  # one that can't be reached says so in a sentence
    console.print(f"the database is at revision {migrate_database(url)}")


@app.command()
def audit(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None, json: AsJson = False
) -> None:
    """Check every invariant on the live database.

    Exit status 1 if anything does not agree, 78 if there is no role for it that can only read, 75 if the database
    can't be reached.
    """
    if json:
        result = run_audit(tenant_id=tenant)
        as_json(
            {
                "differences": result.differences,
                "parked": result.parked,
                "counts": result.counts,
                "checks": result.checks,
                "seconds": result.seconds,
                "shown": [one._asdict() for one in result.shown],
            }
        )
    else:
        result = _audit_for_people(tenant)
    if result.differences:
        raise typer.Exit(1)


def _audit_for_people(tenant: str | None) -> Audit:
    checks = iter(enumerate(CHECKS[1:], 2))

    def progress(number: int, check: str) -> str:
        return f"check {number} of {len(CHECKS)}: {check}"

    with console.status(progress(1, CHECKS[0])) as status:
        result = run_audit(
            lambda *_: status.update(progress(*next(checks, (len(CHECKS), "counting")))), tenant_id=tenant
        )
    table = a_table("check", "seconds", "differences", numbers=("seconds", "differences"))
    for check, found in result.checks.items():
        table.add_row(check, f"{result.seconds[check]:,.1f}", str(found), style="red" if found else "")
    console.print(table)
    for one in result.shown:
        said = f"{one.check}: {one.tenant_id}, {one.subject}: expected {one.expected}, found {one.actual}"
        console.print(plain(said), style="red")
    counts = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in result.counts.items())
    console.print(f"\n{counts}")
    console.print(f"{result.differences:,} differences", style="bold red" if result.differences else "bold green")
    return result


@app.command()
def status(json: AsJson = False) -> None:
    """Where everything is, and how far behind."""
    standing = reports.standing(clock.now(), clock.unmoved())
    queues = looked_at()
    addresses = {
        "database": without_password(settings().required("database_url")),
        "broker": without_password(settings().required("broker_url")),
        "stripe": without_password(settings().stripe_api_base or "https://api.stripe.com"),
        "environment": settings().environment,
    }
    if json:
        waiting = {name: depth.messages for name, depth in queues.items()}
        untaken = [name for name, depth in queues.items() if depth.is_untaken]
        clocks = {**asdict(standing.clocks), "ahead_seconds": standing.clocks.ahead_seconds}
        database = {**asdict(standing), "clocks": clocks}
        as_json({"addresses": addresses, "queues": waiting, "untaken": untaken, "database": database})
        return
    table = a_table("", "")
    table.show_header = False
    for name, value in {**addresses, **_said(standing, queues)}.items():
        table.add_row(name, plain(value))
    console.print(table)


def _said(standing: Standing, queues: dict[str, Depth]) -> dict[str, str]:
    lag = standing.payment_lag_seconds
    return {
        "PostgreSQL": standing.server_version + _unsafe(standing.unsafe_settings),
        "clock": _compared(standing.clocks),
        **{f"queue {name}": f"{depth.messages:,} messages{_untaken(depth)}" for name, depth in queues.items()},
        "events charged": f"{standing.charged:,}",
        "parked": ", ".join(f"{number:,} {reason}" for reason, number in standing.parked.items()) or "nothing",
        "payments": f"{standing.payments:,}, {standing.payments_waiting:,} of them waiting",
        "oldest payment due": f"{lag:,.1f} s ago" if lag else NOTHING,
    }


def _compared(clocks: Clocks) -> str:
    refused = "; nothing is done here that time alone brings about: set the clock that is wrong"
    return f"{said(clocks)}{refused if clocks.differ else ''}"


def _unsafe(names: Sequence[str]) -> str:
    off = ", ".join(name for name in names if name != STANDBYS)
    crash = f"; a crash may lose commits, with {off} off" if off else ""
    failover = f"; a failover to a standby may lose commits, with {STANDBYS} empty" if STANDBYS in names else ""
    return crash + failover


def _untaken(depth: Depth) -> str:
    return ", and nobody takes them" if depth.is_untaken else ""
