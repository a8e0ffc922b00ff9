"""What goes wrong in a run, each at a moment that the seed decides, and noted with its time."""

import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from chaos.stage import COLLECTOR, USAGE_WORKERS, Stage, children_of, signal_all
from sandbox.process_tree import descendants
from sandbox.processes import await_condition
from sandbox.stripe_double.control import CONFIRM, CREATE, RETRIEVE
from sandbox.stripe_double.wishes import ANY, Delivery

#: Signatures of webhooks are good for five minutes, and the double's clock stays.
STEP_SECONDS_MAX = 240
SHARE_TOGETHER = 0.3
#: What never happens at once, by the first word of its name.
APART = ({"worker", "child"}, {"postgres", "disk"}, {"broker", "worker"}, {"stripe", "webhooks"})
ANSWERED_SECONDS_MAX = 10.0
#: As a deployment does it each time: these happen more often than the others.
COMMON = ("worker warm-stopped",)
#: What a worker that is told to stop may take: what was begun is finished, a database that is away is not waited for.
WARM_SECONDS_MAX = 20.0


@dataclass(slots=True)
class Fault:
    """One that happened; unix times. `over_at` is when servers were back, or the last of it was done."""

    kind: str
    began_at: float
    over_at: float = 0.0
    detail: str = ""

    @property
    def hit_nothing(self) -> bool:
        """Whether it found no message, child or call that it could have harmed."""
        return self.detail.startswith("0 ")


@dataclass(slots=True)
class Faults:
    """All kinds, and those that happened so far."""

    stage: Stage
    dice: random.Random
    clock_file: Path
    timeout_seconds: float
    """how long an answer of Stripe's is held back where it is to time out"""
    happened: list[Fault] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    clock_max: int = 0
    wiped: int = 0

    @property
    def kinds(self) -> dict[str, Callable[[], str]]:
        return {
            "child killed": self._kill_child,
            "worker killed": self._kill_worker,
            "collector killed": self._kill_collector,
            "producer killed": self._kill_producer,
            "child stopped": self._stop_child,
            "worker stopped": self._stop_worker,
            "worker warm-stopped": self._stop_worker_warmly,
            "broker killed": self._kill_broker,
            "broker restarted": self._restart_broker,
            "broker wiped": self._wipe_broker,
            "postgres restarted": self._restart_postgres,
            "disk lags": self._lag_disk,
            "clock stepped": self._step_clock,
            "stripe fails": self._fail_stripe,
            "webhooks late": self._delay_webhooks,
        }

    def run(self, is_over: Callable[[], bool], await_calm: Callable[[str], None], pause: tuple[float, float]) -> None:
        """One after the other, now and then two at a time, until every kind was there and it is over.

        `await_calm` is asked between them, with the kind of the last.
        """
        kinds = len(self.kinds) + len(COMMON)
        waiting: list[str] = []
        while len(self.happened) < kinds or not is_over():
            waiting = waiting or self._bag()
            together = [waiting.pop()]
            if waiting and self.dice.random() < SHARE_TOGETHER and not _same_server(together[0], waiting[-1]):
                together.append(waiting.pop())
            delays = [0.0, self.dice.uniform(0, 1)]
            seeds = [self.dice.getrandbits(32) for _ in together]
            threads = [
                threading.Thread(target=self._happen, args=(kind, delay, seed))
                for kind, delay, seed in zip(together, delays, seeds, strict=False)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            time.sleep(self.dice.uniform(*pause))
            await_calm(together[-1])

    def _bag(self) -> list[str]:
        kinds = [*self.kinds, *COMMON]
        self.dice.shuffle(kinds)
        return kinds

    def _happen(self, kind: str, delay: float, seed: int) -> None:
        time.sleep(delay)
        mine = Faults(self.stage, random.Random(seed), self.clock_file, self.timeout_seconds)
        fault = Fault(kind, time.time())
        self.happened.append(fault)
        try:
            fault.detail = mine.kinds[kind]()
        except Exception as error:  # noqa: BLE001 - a thread's error would be seen by nobody
            self.problems.append(f"{kind}: {type(error).__name__}: {error}")
        fault.over_at = time.time()
        self.clock_max = max(self.clock_max, mine.clock_max)
        self.wiped += mine.wiped

    def _kill_child(self) -> str:
        worker = self.stage.workers[self.dice.choice((*USAGE_WORKERS, *USAGE_WORKERS, COLLECTOR))]
        children = children_of(worker)
        signal_all(children, signal.SIGKILL)
        return f"{len(children)} of {worker.name}"

    def _kill_worker(self) -> str:
        return self._kill_main(self.dice.choice(USAGE_WORKERS))

    def _kill_collector(self) -> str:
        return self._kill_main(COLLECTOR)

    def _kill_main(self, name: str) -> str:
        """The main process alone: its children find out by themselves, or are ended when the next one is up."""
        worker = self.stage.workers[name]
        worker.send_signal(signal.SIGKILL)
        time.sleep(self.dice.uniform(0, 1))
        self.stage.start_worker(name)
        worker.kill()
        return name

    def _kill_producer(self) -> str:
        journaled = sorted(name for name, (orders, _) in self.stage.producers.items() if orders.journal)
        name = self.dice.choice(journaled)
        self.stage.succeed_producer(name)
        return name

    def _stop_child(self) -> str:
        worker = self.stage.workers[self.dice.choice(USAGE_WORKERS)]
        return self._stop_for_a_while(worker.name, children_of(worker))

    def _stop_worker(self) -> str:
        worker = self.stage.workers[self.dice.choice(USAGE_WORKERS)]
        return self._stop_for_a_while(worker.name, [worker.pid])

    def _stop_worker_warmly(self) -> str:
        """SIGTERM, as at each deployment: it ends by itself, in time, and another takes its place."""
        worker = self.stage.workers[self.dice.choice(USAGE_WORKERS)]
        worker.send_signal(signal.SIGTERM)
        try:
            # One that was told before it could listen ends by the signal.
            if (code := worker.wait(WARM_SECONDS_MAX)) not in {0, -signal.SIGTERM}:
                raise RuntimeError(f"{worker.name} ended with {code}: {worker.log_tail(5)}")
        finally:
            worker.kill()
            self.stage.start_worker(worker.name)
        return worker.name

    def _stop_for_a_while(self, name: str, pids: list[int]) -> str:
        seconds = self.dice.choice((0.5, 1.0, 3.0, 7.0))
        signal_all(pids, signal.SIGSTOP)
        time.sleep(min(seconds, self.timeout_seconds))
        signal_all(pids, signal.SIGCONT)
        return f"{name} for {seconds} s"

    def _kill_broker(self) -> str:
        self.stage.broker.kill()
        time.sleep(self.dice.uniform(0, 1))
        with self.stage.starting:
            self.stage.broker.start()
        return ""

    def _restart_broker(self) -> str:
        self.stage.broker.stop()
        with self.stage.starting:
            self.stage.broker.start()
        return ""

    def _wipe_broker(self) -> str:
        """With something in it: workers stand still for a moment before."""
        mains = [worker.pid for name, worker in self.stage.workers.items() if name != COLLECTOR]
        signal_all(mains, signal.SIGSTOP)
        try:
            time.sleep(self.dice.uniform(0.5, 1.5))
            messages = self.stage.broker.wipe()
        finally:
            signal_all(mains, signal.SIGCONT)
        self.wiped += messages
        return f"{messages} messages"

    def _restart_postgres(self) -> str:
        self.stage.postgres.stop("immediate")
        with self.stage.starting:
            self.stage.postgres.start()
        return ""

    def _lag_disk(self) -> str:
        """All of Postgres but its postmaster stands still for tenths of seconds, several times.

        To its clients, and to one another, a disk that answers late looks just so.
        """
        times = self.dice.randrange(3, 7)
        for _ in range(times):
            pids = [process.pid for process in descendants(self.stage.postgres.process.pid)]
            signal_all(pids, signal.SIGSTOP)
            time.sleep(self.dice.uniform(0.1, 0.6))
            signal_all(pids, signal.SIGCONT)
            time.sleep(self.dice.uniform(0.05, 0.3))
        return f"{times} times"

    def _step_clock(self) -> str:
        """That of the workers and that of the producers, each for itself, forth or back."""
        ours = self.dice.randrange(-STEP_SECONDS_MAX, STEP_SECONDS_MAX)
        theirs = self.dice.randrange(-STEP_SECONDS_MAX, STEP_SECONDS_MAX)
        self.stage.step_clock(ours)
        self.clock_file.write_text(str(theirs), encoding="utf-8")
        self.clock_max = max(ours, 0)
        return f"workers {ours:+d} s, producers {theirs:+d} s"

    def _fail_stripe(self) -> str:
        """Answers lost, broken, late and refused for some seconds; one call times out."""
        control, dice = self.stage.control, self.dice
        add = partial(control.add_fault, times=0)
        path = dice.choice((CREATE, CONFIRM, CONFIRM, RETRIEVE, ANY))
        control.add_fault("hold_after", "POST", CONFIRM, times=1, seconds=self.timeout_seconds)
        add("drop_after", path=path, probability=0.2, seed=dice.getrandbits(16))
        # Stripe keeps most of them under the key, and answers so for a day.
        for is_kept in (True, False):
            add("error_after", path=path, probability=0.1, seed=dice.getrandbits(16), is_kept=is_kept)
        add("drop_before", path=path, probability=0.1, seed=dice.getrandbits(16))
        add("unavailable", path=path, probability=0.1, seed=dice.getrandbits(16))
        add("delay_after", path=path, probability=0.1, seed=dice.getrandbits(16), seconds=2)
        time.sleep(min(dice.uniform(2, 4), self.timeout_seconds))
        hits = sum(fault.hits for fault in control.faults())
        control.clear_faults()
        control.refuse_connections(0.5)
        await_condition(control.is_answered, ANSWERED_SECONDS_MAX, "the double to answer again")
        return f"{hits} calls on {path}"

    def _delay_webhooks(self) -> str:
        """From now on they come late, doubled and out of order; until the next time."""
        dice = self.dice
        delivery = Delivery(
            copies=dice.randrange(1, 4),
            delay_seconds=dice.uniform(0, 2),
            shuffle_window=dice.choice((1, 5)),
            lost_share=0.05,
            seed=dice.getrandbits(16),
            attempts_max=20,
        )
        self.stage.control.set_delivery(delivery)
        return f"{delivery.copies} copies, {delivery.delay_seconds:.1f} s late"


def _same_server(one: str, other: str) -> bool:
    """Two that would start the same server, or replace the same worker, at once."""
    both = {one.partition(" ")[0], other.partition(" ")[0]}
    return len(both) == 1 or any(both <= pair for pair in APART)
