"""Commands that become a long-running process: `worker`, `beat`."""

import os
import sys
from typing import Annotated

import typer

app = typer.Typer()

_CELERY = [sys.executable, "-m", "celery", "--app", "worker.app", "--quiet"]
Queues = Annotated[str, typer.Option(help="Queues to work, separated by commas: usage, payments, ticks.")]


@app.command()
def worker(
    queues: Queues = "usage,payments,ticks",
    children: Annotated[int, typer.Option(min=1, help="Pool children.")] = 2,
    name: Annotated[str, typer.Option(help="A name of its own for each worker on a host.")] = "worker",
) -> None:
    """Run a Celery worker in this process."""
    options = ["--queues", queues, "--concurrency", str(children), "--hostname", f"{name}@%h", "--pool", "prefork"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    os.execv(sys.executable, [*_CELERY, "worker", "--loglevel", "INFO", *options, *quiet])  # noqa: S606


@app.command()
def beat() -> None:
    """Run beat in this process: it only says "look now"."""
    os.execv(sys.executable, [*_CELERY, "beat", "--loglevel", "INFO", "--pidfile", ""])  # noqa: S606
