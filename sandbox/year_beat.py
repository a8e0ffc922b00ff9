"""Playing beat in simulated time: saying ticks, and waiting until all that they found is done.

Quiet is a condition, asked of the broker in one step: no message waits, none is being worked on, and every worker
listens. A worker that has just taken a message and not yet noted it does not listen, so nothing is overlooked.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from celery import Celery
from redis import Redis

from billing.errors import CentavoError
from config import clock
from config.settings import settings
from db import grants as grant_rows
from db import happened
from db import months as month_rows
from db.session import Connection, in_transaction
from sandbox.stack import ROOT, Stack
from sandbox.year_plan import Step
from tasks import names
from tasks.queues import UNACKNOWLEDGED, of_usage

#: From one look at the broker to the next: short at first, longer while there is much to do.
POLL_SECONDS_MIN, POLL_SECONDS_MAX, POLL_GROWTH = 0.002, 0.05, 1.3
STALLED_SECONDS_MAX = 60.0
LOOK_AT_PROCESSES_SECONDS = 0.5
#: A look that finds work again and again after so many ticks finds what no tick can do.
ROUNDS_MAX = 60

#: What each tick looks for: whether there is any of it. Other ticks are said once a step.
LOOKS: Mapping[str, Callable[[Connection, datetime], object]] = {
    names.TURN_MONTHS: lambda connection, now: month_rows.lock_due(connection, now, 1),
    names.SWEEP_PAYMENTS: happened.is_payment_due,
    names.SWEEP_REFUNDS: happened.is_refund_due,
    names.BREAK_GRANTS: lambda connection, now: grant_rows.to_break(connection, now, 1),
    names.CLOSE_PERIODS: lambda connection, now: month_rows.to_close(connection, now, 1),
    names.ISSUE_STATEMENTS: lambda connection, _: month_rows.to_state(connection, 1),
}


#: Of these several looks share the work: each skips what another holds, and beat says the next while one is at it.
SHARED = {names.ISSUE_STATEMENTS}
LOOKERS = 3


class YearFailed(CentavoError):
    """The simulation could not be brought to its end."""


def all_ticks() -> list[str]:
    """The task of every tick that beat says, in the order of the worker's table, which a process prints."""
    command = [sys.executable, "-m", "worker.schedule"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    tasks: list[str] = json.loads(said.stdout)
    return tasks


@dataclass(slots=True)
class Beat:
    """What says the ticks, and waits."""

    stack: Stack
    app: Celery
    broker: Redis
    said: Counter[str] = field(default_factory=Counter)
    _left: int = 0
    """messages in the broker, at the last look"""

    def say(self, step: Step) -> None:
        """Say the ticks of a step, those that find something again until nothing is left, and wait for all of it."""
        if not step.times:
            self.wait()
            return
        self._send([tick for tick, times in step.times.items() for _ in range(times)])
        for _ in range(ROUNDS_MAX):
            self.wait()
            again = [tick for tick in self._finding(clock.now()) if step.says(tick)]
            if not again:
                return
            self._send([tick for tick in again for _ in range(LOOKERS if tick in SHARED else 1)])
        raise YearFailed(f"on {step.at:%Y-%m-%d} these ticks find work again and again: {', '.join(again)}")

    def _finding(self, now: datetime) -> list[str]:
        """The ticks that would find something."""
        return in_transaction(lambda connection: [tick for tick, finds in LOOKS.items() if finds(connection, now)])

    def _send(self, tasks: Sequence[str]) -> None:
        with self.app.producer_or_acquire() as producer:
            for task in tasks:
                self.app.send_task(task, queue=settings().ticks_queue, producer=producer)
        self.said.update(tasks)

    def wait(self) -> None:
        """Wait until the workers have done all that they were sent."""
        pause, left, since = POLL_SECONDS_MIN, 0, time.monotonic()
        while not self._is_quiet():
            still_left = self._left
            if still_left != left:
                left, since = still_left, time.monotonic()
            elif time.monotonic() - since > LOOK_AT_PROCESSES_SECONDS:
                self._refuse_to_wait(time.monotonic() - since)
            time.sleep(pause)
            pause = min(pause * POLL_GROWTH, POLL_SECONDS_MAX)

    def _refuse_to_wait(self, seconds: float) -> None:
        if ended := self.stack.ended():
            raise YearFailed(f"{ended.name} has ended; the end of {ended.log_file}:\n{ended.log_tail()}")
        if seconds > STALLED_SECONDS_MAX:
            raise YearFailed(
                f"nothing has moved for {seconds:.0f} s, with {self._left} messages in the broker; "
                f"the logs in {self.stack.home.path} say why"
            )

    def _is_quiet(self) -> bool:
        # Most looks find work, and the first question is the cheaper one.
        return self._lengths() == 0 and self._lengths(and_workers_listen=True) == 0

    def _lengths(self, *, and_workers_listen: bool = False) -> int:
        """Messages in the broker; as long as some worker does not listen, one more at least. In one step."""
        chosen = settings()
        with self.broker.pipeline(transaction=True) as look:
            for queue in (*of_usage(chosen), chosen.payments_queue, chosen.ticks_queue):
                look.llen(queue)
            look.hlen(UNACKNOWLEDGED)
            if and_workers_listen:
                look.info("clients")
            answers = look.execute()
        clients = answers.pop() if and_workers_listen else None
        busy = len(self.stack.workers) - int(clients["blocked_clients"]) if clients else 0
        self._left = sum(answers)
        return self._left + abs(busy)


@contextmanager
def beating(stack: Stack) -> Iterator[Beat]:
    """A beat for a stack whose workers run."""
    address = stack.addresses.broker_url
    with Celery(broker=address, set_as_current=False) as app, closing(Redis.from_url(address)) as broker:
        yield Beat(stack, app, broker)
