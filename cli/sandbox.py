"""Everything on this machine: `up`, `down`, `demo`."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.status import Status

from billing.errors import CentavoError, Rejected
from cli import demo_view
from cli.show import console
from config import clock
from config.settings import settings, use
from db import session
from sandbox import demo as demo_run
from sandbox.home import SandboxAlreadyRunning, SandboxHome, SandboxStateUnreadable
from sandbox.processes import ConditionNotMet
from sandbox.stack import Stack, end_stack, running_stack
from sandbox.trace import TraceError

app = typer.Typer()

SAID_AGAIN_SECONDS = 0.05
LOOK_SECONDS = 0.5
INTERRUPTED = 130  # as shells have it for Ctrl-C


@app.command()
def up(children: Annotated[int, typer.Option(min=1, help="Pool children of the usage worker.")] = 2) -> None:
    """Run everything here until Ctrl-C: Postgres, Valkey, the Stripe double, workers and beat."""
    home = SandboxHome(settings().home)
    with interruptible(), stack_in(home) as stack:
        with console.status("starting workers and beat"):
            stack.start_workers(children)
        stack.note(with_us=True)
        console.print(
            f"Centavo is up in {home.path}; `centavo status` in another terminal looks inside. Ctrl-C ends it.",
            soft_wrap=True,
        )
        if clock.offset():
            console.print(f"Its clock is moved, as it was left: it is {clock.now():%Y-%m-%d %H:%M} UTC here.")
        _watch_over(stack)


@app.command()
def down() -> None:
    """End the stack of `up`, or one that `demo --keep` left running."""
    homes = [SandboxHome(settings().home), SandboxHome(settings().home / "demo")]
    with explained():
        ended = [end_stack(home, lambda what: console.print(f"ended {what}")) for home in homes]
    if not any(ended):
        console.print(f"nothing runs in {homes[0].path}", soft_wrap=True)


@app.command()
def demo(
    trace: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, readable=True, help="A CSV trace to bill.")
    ] = None,
    events: Annotated[int | None, typer.Option(min=1, help="How many events.")] = None,
    customers: Annotated[int, typer.Option(min=1, max=10_000, help="How many customers.")] = 6,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything up at the end.")] = False,
    json: Annotated[Path | None, typer.Option(dir_okay=False, writable=True, help="Write the result there.")] = None,
) -> None:
    """Bill a trace of LLM usage on a stack of its own, and prove the result. Exit status 0 only if the audit holds.

    Row i of the trace belongs to customer i mod n. Even customers pay BRL 400
    for the month, which covers 8M tokens, and BRL 100 for each 8M beyond. Odd
    ones are prepaid, at USD 0.00003 a token in and 0.00006 a token out (gpt-4).
    The card of customer 2 declines.

    Without a trace, one of the shape of a code-completion service's is drawn:
    mixtures of log-normals, with medians of 1,469 tokens in, 13 out and 64 ms
    between requests. At its default size a tier payment succeeds, and one is
    declined.
    """
    if json is not None and not json.absolute().parent.is_dir():
        raise Rejected(f"there is no folder {json.absolute().parent} to write the result to")
    home = SandboxHome(settings().home / "demo")
    options = demo_run.Options(trace, events, customers)
    with explained():
        rows = demo_run.rows_to_bill(options, clock.unmoved())
    with interruptible(), stack_in(home, is_fresh=True) as stack:
        with demo_view.live(len(rows)) as watch:
            report = demo_run.run(stack, rows, options, watch)
        demo_view.show(report)
        if json is not None:
            json.write_bytes(demo_view.as_json(report))
        if keep:
            stack.leave_running()
            demo_view.say_how_to_look(stack)
    if not report.holds:
        raise typer.Exit(1)


@contextmanager
def stack_in(home: SandboxHome, *, is_fresh: bool = False, is_durable: bool = True) -> Iterator[Stack]:
    """Servers in this home, and this process set up to use them."""
    with explained(), ExitStack() as ending:
        with console.status("starting") as status:
            said = partial(_say_starting, status)
            stack = ending.enter_context(running_stack(home, said, is_fresh=is_fresh, is_durable=is_durable))
        use(**stack.addresses.as_settings(home.path))
        ending.callback(session.close)
        yield stack


def _say_starting(status: Status, what: str) -> None:
    status.update(f"starting {what}")


@contextmanager
def explained() -> Iterator[None]:
    """What can go wrong with servers and files is said in a sentence, with the end of the log where there is one."""
    try:
        yield
    except (SandboxAlreadyRunning, SandboxStateUnreadable, ConditionNotMet, TraceError) as error:
        raise CentavoError(str(error)) from error


@contextmanager
def interruptible() -> Iterator[None]:
    """Being told to end is like Ctrl-C: everything that was started is ended first."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def ignored(what: Any) -> None:
        # Python swallows what is raised while it destroys an object: then it is said once more, a moment later.
        if issubclass(what.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, SAID_AGAIN_SECONDS)
        else:
            sys.__unraisablehook__(what)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, interrupt)
    sys.unraisablehook = ignored
    try:
        yield
    except KeyboardInterrupt:
        # Whoever is impatient and says it twice says it to a process that has nothing left to end.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        console.print("interrupted; everything is ended")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        sys.unraisablehook = sys.__unraisablehook__


def _watch_over(stack: Stack) -> None:
    """Wait until somebody interrupts, or a part of the stack ends by itself: without it the rest is of no use."""
    while (ended := stack.ended()) is None:
        time.sleep(LOOK_SECONDS)
    raise CentavoError(f"{ended.name} has ended, so everything was; the end of its log:\n{ended.log_tail()}")
