"""Running it: `migrate`, `audit`, `status`."""

import typer

from cli.show import NOTHING, AsJson, a_table, as_json, console, plain, without_password
from config import clock
from config.settings import settings
from db import session
from db.migrate import migrate as migrate_database
from services import reports
from services.audit import Audit
from services.audit import audit as run_audit
from services.reports import Standing
from tasks.queues import depths

app = typer.Typer()


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    url = settings().required("database_url")
    with session.transaction():
        pass  # one that can't be reached says so in a sentence
    console.print(f"the database is at revision {migrate_database(url)}")


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
                "shown": [one._asdict() for one in result.shown],
            }
        )
    else:
        result = _audit_for_people()
    if result.differences:
        raise typer.Exit(1)


def _audit_for_people() -> Audit:
    with console.status("auditing") as status:
        result = run_audit(lambda check, _: status.update(f"audited: {check}"))
    table = a_table("check", "differences", numbers=("differences",))
    for check, found in result.checks.items():
        table.add_row(check, str(found), style="red" if found else "")
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
    standing = reports.standing(clock.now())
    queues = depths()
    addresses = {
        "database": without_password(settings().required("database_url")),
        "broker": without_password(settings().required("broker_url")),
        "stripe": without_password(settings().stripe_api_base or "https://api.stripe.com"),
        "environment": settings().environment,
    }
    if json:
        as_json({"addresses": addresses, "queues": queues, "database": standing})
        return
    table = a_table("", "")
    table.show_header = False
    for name, value in {**addresses, **_said(standing, queues)}.items():
        table.add_row(name, plain(value))
    console.print(table)


def _said(standing: Standing, queues: dict[str, int]) -> dict[str, str]:
    lag = standing.payment_lag_seconds
    return {
        "PostgreSQL": standing.server_version,
        **{f"queue {queue}": f"{depth:,} messages" for queue, depth in queues.items()},
        "events charged": f"{standing.charged:,}",
        "parked": ", ".join(f"{number:,} {reason}" for reason, number in standing.parked.items()) or "nothing",
        "payments": f"{standing.payments:,}, {standing.payments_waiting:,} of them waiting",
        "oldest payment due": f"{lag:,.1f} s ago" if lag else NOTHING,
    }
