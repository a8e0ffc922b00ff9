"""Commands that become a long-running process: `worker`, `beat`."""

import os
import sys
from typing import Annotated

import typer

from billing.errors import BrokerUnavailable
from config.settings import Settings, process_environment, settings
from tasks import queues as known

app = typer.Typer()

_CELERY = [sys.executable, "-m", "celery", "--app", "worker.app", "--quiet"]
#: Messages a child may have at hand. Small envelopes are gathered from what is at hand (`tasks.gathering`); payments
#: are few, and one that waits here waits for nobody else.
_PREFETCH = 4
_PREFETCH_OF_USAGE = 100
#: RabbitMQ counts what is at hand for each queue by itself: with many shards, a share of it has to do.
_PREFETCH_OF_A_SHARD_MIN = 20
Queues = Annotated[
    str,
    typer.Option(help="Queues to work, separated by commas: usage (and all its shards), usage.0, …, payments, ticks."),
]


@app.command()
def worker(
    queues: Queues = "usage,payments,ticks",
    children: Annotated[int, typer.Option(min=1, help="Pool children.")] = 2,
    name: Annotated[str, typer.Option(help="A name of its own for each worker on a host.")] = "worker",
) -> None:
    """Run a Celery worker in this process."""
    chosen = settings()
    taken = known.taken(queues, chosen, _left(queues, chosen))
    options = ["--queues", ",".join(taken), "--concurrency", str(children)]
    options += ["--hostname", f"{name}@%h", "--pool", "prefork", "--prefetch-multiplier", str(_prefetch(taken, chosen))]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    # It knows every queue that it takes, also a shard that is no longer, or not yet, among those of the settings.
    shards = max(chosen.usage_shards, known.shards_among(taken, chosen))
    environment = process_environment() | {"CENTAVO_USAGE_SHARDS": str(shards)}
    command = [*_CELERY, "worker", "--loglevel", "INFO", *options, *quiet]
    os.execve(sys.executable, command, environment)  # noqa: S606


def _left(queues: str, chosen: Settings) -> tuple[str, ...]:
    """Shards of earlier settings in which something is left, for a worker that takes all usage.

    A broker that is away is waited for later; what is left in it then, `centavo status` shows.
    """
    if chosen.broker_url is None or chosen.usage_queue not in {part.strip() for part in queues.split(",")}:
        return ()
    try:
        return known.left(chosen)
    except BrokerUnavailable:
        return ()


def _prefetch(taken: tuple[str, ...], chosen: Settings) -> int:
    if not all(known.takes_usage(queue, chosen) for queue in taken):
        return _PREFETCH
    if chosen.broker_url is None or not known.is_rabbitmq(chosen.required("broker_url")):
        return _PREFETCH_OF_USAGE
    return max(_PREFETCH_OF_USAGE // len(taken), _PREFETCH_OF_A_SHARD_MIN)


@app.command()
def beat() -> None:
    """Run beat in this process: it only says "look now"."""
    os.execv(sys.executable, [*_CELERY, "beat", "--loglevel", "INFO", "--pidfile", ""])  # noqa: S606
