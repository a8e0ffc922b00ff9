"""Everything on this machine: `up`, `down`, `demo`."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from billing.errors import CentavoError
from cli import demo_view
from cli.show import console
from config import logging
from config.settings import settings, use
from db import session
from sandbox import demo as demo_run
from sandbox.home import SandboxAlreadyRunning, SandboxHome
from sandbox.stack import Stack, note, running_stack

app = typer.Typer()

END_SECONDS = 20


@app.command()
def up(children: Annotated[int, typer.Option(min=1, help="Pool children of the usage worker.")] = 2) -> None:
    """Run everything here until Ctrl-C: Postgres, Valkey, the Stripe double, workers and beat."""
    home = SandboxHome(settings().home)
    with _interruptible(), _stack(home) as stack:
        with console.status("starting workers and beat"):
            stack.start_workers(children)
        note(stack)
        console.print(
            f"Centavo is up in {home.path}; `centavo status` in another terminal looks inside. Ctrl-C ends it."
        )
        _wait_for_ever()


@app.command()
def down() -> None:
    """End a stack that was left running."""
    for home in (SandboxHome(settings().home), SandboxHome(settings().home / "demo")):
        state = home.running_state()
        if state is None:
            continue
        # Beat and workers before the servers that they use.
        for name, process in reversed(list(state.running_processes().items())):
            process.end(grace_seconds=END_SECONDS)
            console.print(f"ended {name} (process {process.pid})")
        home.clear()


@app.command()
def demo(
    trace: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="A CSV trace to bill.")] = None,
    events: Annotated[int | None, typer.Option(min=1, help="How many events.")] = None,
    customers: Annotated[int, typer.Option(min=1, max=10_000, help="How many customers.")] = 6,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything up at the end.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the result there, too.")] = None,
) -> None:
    """Bill a trace of LLM usage on a stack of its own, and prove the result. Exit status 0 only if the audit holds."""
    home = SandboxHome(settings().home / "demo")
    options = demo_run.Options(trace, events, customers)
    with _interruptible(), _stack(home, is_fresh=True) as stack:
        with demo_view.live(options) as watch:
            watch.on_step("workers and beat")
            stack.start_workers()
            report = demo_run.run(stack, options, watch)
        demo_view.show(report)
        if json is not None:
            json.write_bytes(demo_view.as_json(report))
        if keep:
            note(stack)
            demo_view.say_how_to_look(stack)
            stack.leave_running()
    if not report.holds:
        raise typer.Exit(1)


@contextmanager
def _stack(home: SandboxHome, *, is_fresh: bool = False) -> Iterator[Stack]:
    """Servers in this home, and this process set up to use them."""
    logging.configure("WARNING")
    try:
        with console.status("starting") as status:
            context = running_stack(home, lambda what: status.update(f"starting {what}"), is_fresh=is_fresh)
            stack = context.__enter__()
    except SandboxAlreadyRunning as error:
        raise CentavoError(str(error)) from error
    try:
        use(**stack.addresses.as_settings(home.path))
        yield stack
    finally:
        session.close()
        context.__exit__(None, None, None)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Being told to end is like Ctrl-C: everything that was started is ended first."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted; everything is ended")
        raise typer.Exit(130) from None


def _wait_for_ever() -> None:
    threading.Event().wait()
