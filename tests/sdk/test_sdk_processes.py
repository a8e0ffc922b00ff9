"""Forks, exits, signals and pools: each in a process of its own."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.sdk.support import Broker, eventually, run_program


def test_after_a_fork_the_events_of_parent_and_child_each_arrive_once(broker: Broker) -> None:
    ran = run_program(
        """
producer = Producer(sys.argv[1], linger_seconds=3600)
producer.emit(event("sent before"))
producer.flush()
for number in range(10):
    producer.emit(event(f"before {number}"))
child = os.fork()
for number in range(10):
    producer.emit(event(f"{'parent' if child else 'child'} {number}"))
assert producer.counters.emitted == (21 if child else 10), producer.counters
if child:
    os.waitpid(child, 0)
""",
        broker.url,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    expected = ["sent before", *(f"{who} {n}" for who in ("before", "parent", "child") for n in range(10))]
    assert sorted(expected) == sorted(broker.keys())


def test_forks_amid_emitting_threads_neither_hang_nor_lose_nor_repeat(broker: Broker) -> None:
    ran = run_program(
        """
import threading
producer = Producer(sys.argv[1], envelope_events_max=7, linger_seconds=0.01)
stop = threading.Event()
emitted = 0
def emit_all():
    global emitted
    while not stop.wait(0.0002):
        producer.emit(event(f"parent {emitted}"))
        emitted += 1
thread = threading.Thread(target=emit_all)
thread.start()
children = []
for number in range(20):
    stop.wait(0.003)
    child = os.fork()
    if not child:
        producer.emit(event(f"child {number}"))
        os._exit(producer.close())
    children.append(child)
statuses = [os.waitpid(child, 0)[1] for child in children]
stop.set()
thread.join()
assert statuses == [0] * 20, statuses
assert producer.close(20) == 0
print(emitted)
""",
        broker.url,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    expected = [f"parent {n}" for n in range(int(ran.stdout))] + [f"child {n}" for n in range(20)]
    assert sorted(expected) == sorted(broker.keys())


def test_a_process_that_just_ends_sends_what_it_emitted(broker: Broker) -> None:
    ran = run_program("Producer(sys.argv[1], linger_seconds=3600).emit(event('last'))", broker.url)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert broker.keys() == ["last"]


def test_a_process_that_ends_without_a_broker_says_on_stderr_what_was_lost(stopped_broker: Broker) -> None:
    ran = run_program(
        """
from centavo import lifecycle
lifecycle.EXIT_SECONDS_MAX = 0.3
producer = Producer(sys.argv[1])
for number in range(3):
    producer.emit(event(str(number)))
""",
        stopped_broker.url,
    )

    assert ran.returncode == 0
    assert "3 usage events were not sent to redis://" in ran.stderr


def test_a_multiprocessing_child_that_just_ends_sends_what_it_emitted(broker: Broker) -> None:
    ran = run_program(
        """
import multiprocessing
producer = Producer(sys.argv[1], linger_seconds=3600)
child = multiprocessing.get_context("fork").Process(target=lambda: producer.emit(event("from the child")))
child.start()
child.join()
""",
        broker.url,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert broker.keys() == ["from the child"]


def test_a_signal_handler_may_emit_and_flush_while_an_emit_is_under_way(broker: Broker) -> None:
    ran = run_program(
        """
import itertools, signal
producer = Producer(sys.argv[1], envelope_events_max=3)
numbers = itertools.count()
def emit_too(*_):
    for number in (next(numbers), next(numbers), next(numbers), next(numbers)):
        producer.emit(event(f"handler {number}"))
    if number % 5 == 0:
        producer.flush(0.01)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
signal.signal(signal.SIGALRM, emit_too)
signal.setitimer(signal.ITIMER_REAL, 0.0005)
for number in range(5_000):
    producer.emit(event(f"main {number}"))
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert producer.flush(20) == 0
handled = next(numbers)
print(handled)
assert producer.counters.emitted == producer.counters.published == 5_000 + handled, producer.counters
""",
        broker.url,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    expected = [f"main {n}" for n in range(5_000)] + [f"handler {n}" for n in range(int(ran.stdout))]
    assert len(expected) > 5_000
    assert sorted(expected) == sorted(broker.keys())


def test_a_process_told_to_end_may_close_in_its_signal_handler(broker: Broker) -> None:
    ran = run_program(
        """
import signal
producer = Producer(sys.argv[1], linger_seconds=3600)
emitted = 0
def end(*_):
    unsent = producer.close()
    print(emitted, unsent, flush=True)
    os._exit(0)
signal.signal(signal.SIGALRM, end)
signal.setitimer(signal.ITIMER_REAL, 0.2)
while True:
    producer.emit(event(str(emitted)))
    emitted += 1
""",
        broker.url,
    )

    emitted, unsent = map(int, ran.stdout.split())
    assert (ran.returncode, ran.stderr, unsent) == (0, "", 0)
    # The emit that was interrupted may or may not have taken its event.
    assert broker.keys() in ([str(n) for n in range(emitted)], [str(n) for n in range(emitted + 1)])


def test_a_celery_pool_child_sends_what_it_emitted_before_it_ends(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "emitting.py").write_text(
        """
from celery import Celery
from centavo import Producer
from tests.sdk.support import event
import sys

url = sys.argv[-1]
app = Celery("emitting", broker=url)
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
producer = Producer(url, queue="emitted", linger_seconds=3600)

@app.task(name="emit")
def emit(key):
    producer.emit(event(key))
    with open("emitted", "w") as done:
        done.write(key)

if __name__ == "__main__":
    emit.delay("from the pool")
    app.worker_main(["worker", "--pool=prefork", "--concurrency=1", "--without-gossip", "--without-mingle"])
"""
    )
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "emitting.py", broker.url], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            eventually((tmp_path / "emitted").exists, seconds=20)
            assert broker.keys("emitted") == []
            worker.send_signal(signal.SIGTERM)
            worker.wait(20)
        finally:
            worker.kill()
            worker.wait()

    assert broker.keys("emitted") == ["from the pool"], (tmp_path / "log").read_text()


def test_importing_the_package_does_not_import_the_broker_library() -> None:
    ran = run_program("assert 'kombu' not in sys.modules and 'redis' not in sys.modules")

    # The helper that brings `event` imports neither; whoever only builds events does not pay for sending them.
    assert (ran.returncode, ran.stderr) == (0, "")
