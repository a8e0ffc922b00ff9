"""A year in a sandbox of its own: `simulate`."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from billing.errors import Rejected
from cli import demo_view, simulate_view
from cli.sandbox import interruptible, stack_in
from sandbox import year
from sandbox.home import SandboxHome
from sandbox.year_plan import MONTHS_OF_YEAR, Options

app = typer.Typer()

MONTHS_MAX = 36


@app.command()
def simulate(
    months: Annotated[int, typer.Option(min=1, max=MONTHS_MAX, help="How many months.")] = MONTHS_OF_YEAR,
    customers: Annotated[int, typer.Option(min=1, max=5000, help="How many customers.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="The same seed is the same year.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything up at the end.")] = False,
    json: Annotated[Path | None, typer.Option(dir_okay=False, writable=True, help="Write the result there.")] = None,
) -> None:
    """Let a year pass through the real tasks, and prove it. Exit status 0 only if all of it holds.

    A stack of its own in a folder of its own, whose clock is moved on from day to
    day. Customers in six time zones use what five plans offer, change zones, plans
    and cards, pause and leave; cards decline. Ticks are said twice or not at all,
    and for 40 days none is said.

    What must come of it is reckoned apart from the rules under test: every fee and
    every reset once, statements that go on where the last one ended, what Stripe
    took to the cent. Then the audit.
    """
    if json is not None and not json.absolute().parent.is_dir():
        raise Rejected(f"there is no folder {json.absolute().parent} to write the result to")
    with interruptible(), _own_home() as home, stack_in(home, is_fresh=True, is_durable=False) as stack:
        options = Options(months, customers, seed)
        with simulate_view.live() as watch:
            report = year.run(stack, options, watch)
        simulate_view.show(report)
        if json is not None:
            json.write_bytes(simulate_view.as_json(report))
        if keep:
            stack.leave_running()
            demo_view.say_how_to_look(stack)
    if not report.holds:
        raise typer.Exit(1)


@contextmanager
def _own_home() -> Iterator[SandboxHome]:
    """A folder for this stack alone; it goes with it, unless the stack is left running in it."""
    path = Path(tempfile.mkdtemp(prefix="centavo-year-"))
    # Run by root, Postgres is another user: it has to get through to its data.
    path.chmod(0o711)
    home = SandboxHome(path)
    try:
        yield home
    finally:
        if not home.is_running():
            shutil.rmtree(path, ignore_errors=True)
