"""Archiving old usage: `archive`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from billing.errors import Rejected
from cli.show import AsJson, a_table, as_json, console, errors, plain
from config import clock
from config.settings import settings
from db.archiving import Archive, Ready
from services import clocks
from services.cycle import archiving
from services.cycle.archiving import Asked

app = typer.Typer()


@app.command()
def archive(
    *,
    older_than: Annotated[
        int | None, typer.Option(help="Months; else CENTAVO_RETENTION_MONTHS. What ended since then stays.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="The folder; else CENTAVO_ARCHIVE_FOLDER.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be archived, and write nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Write old usage to files, and leave of it in the database what keeps every sum exact.

    Runs beside usage, and goes on where a run before was interrupted. Keys and fingerprints stay, for ever.
    """
    months = older_than if older_than is not None else settings().retention_months
    root = to or settings().archive_folder
    if months is None:
        raise Rejected("say how old usage must be: --older-than 12, or CENTAVO_RETENTION_MONTHS; nothing is by default")
    if root is None and not dry_run:
        raise Rejected("say where to: --to /srv/centavo-archive, or CENTAVO_ARCHIVE_FOLDER")
    asked = Asked(months, root or Path(), tenant)
    # What is archived is corrected no more, and by the time alone it is old.
    clocks.refuse_apart(clock.unmoved())
    if dry_run:
        _show_ready(archiving.ready(asked, clock.now()), json=json)
        return
    done = _archived(asked)
    if json:
        as_json({"archives": [_as_document(one) for one in done]})
        return
    _show_done(done)


def _show_ready(ready: list[Ready], *, json: bool) -> None:
    if json:
        as_json({"ready": [one._asdict() for one in ready]})
        return
    if not ready:
        console.print("nothing is old enough")
        return
    table = a_table("tenant", "month", "periods", "events", "tokens", numbers=("periods", "events", "tokens"))
    for one in ready:
        table.add_row(plain(one.tenant_id), one.month, f"{one.periods:,}", f"{one.events:,}", f"{one.tokens:,}")
    table.add_row("all", "", *(f"{sum(column):,}" for column in zip(*(one[2:] for one in ready), strict=True)))
    console.print(table)
    console.print("nothing is written yet: the same command without --dry-run archives it")


def _archived(asked: Asked) -> list[Archive]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        tasks: dict[tuple[int, str], TaskID] = {}

        def on_progress(one: Archive, step: str, done: int, of: int | None) -> None:
            name = (one.archive_id, step)
            if name not in tasks:
                tasks[name] = progress.add_task(f"{plain(one.tenant_id)} {one.month}: {step}", total=of)
            progress.update(tasks[name], completed=done)

        return archiving.archive(asked, clock.now(), on_progress)


def _show_done(done: list[Archive]) -> None:
    if not done:
        console.print("nothing is old enough")
        return
    numbers = ("events", "entries", "bytes")
    table = a_table("tenant", "month", "archive", *numbers, numbers=numbers)
    for one in done:
        figures = (one.events or 0, one.entries or 0, one.size_bytes or 0)
        table.add_row(plain(one.tenant_id), one.month, str(one.archive_id), *(f"{number:,}" for number in figures))
    sums = [
        sum(one.events or 0 for one in done),
        sum(one.entries or 0 for one in done),
        sum(one.size_bytes or 0 for one in done),
    ]
    table.add_row("all", "", "", *(f"{number:,}" for number in sums), style="bold")
    console.print(table)
    for folder in sorted({one.path for one in done}):
        console.print(plain(folder), soft_wrap=True)


def _as_document(one: Archive) -> dict[str, Any]:
    return {
        "tenant_id": one.tenant_id,
        "month": one.month,
        "archive_id": one.archive_id,
        "folder": one.folder,
        "events": one.events,
        "entries": one.entries,
        "bytes": one.size_bytes,
        "sha256": one.sha256.hex() if one.sha256 else None,
    }
