"""The RabbitMQ of the sandbox keeps what it confirmed, stays on the loopback, and outlives nobody."""

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kombu
import psutil
import pytest

from sandbox.process_tree import ProcessIdentity, descendants
from sandbox.processes import await_condition
from sandbox.rabbitmq import RabbitMQServer, rabbitmq_missing

why = rabbitmq_missing()
pytestmark = pytest.mark.skipif(why is not None, reason=str(why))


@pytest.fixture
def rabbitmq(tmp_path: Path) -> Iterator[RabbitMQServer]:
    """A running server of the test's own."""
    with RabbitMQServer(tmp_path / "rabbitmq") as server:
        yield server


def knows_after_a_crash(server: RabbitMQServer, queue: str) -> bool:
    """A new queue's name is written a second later (3.10): killed before, the queue comes back without a leader."""
    return any(queue.encode() in names.read_bytes() for names in server.data_dir.rglob("names.dets"))


def listens_on(server: RabbitMQServer) -> set[str]:
    """The addresses of this machine at which it can be reached."""
    processes = [psutil.Process(server.process.pid), *descendants(server.process.pid)]
    connections = [each for process in processes for each in process.net_connections("inet")]
    return {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}


def test_a_kill_loses_nothing_that_was_confirmed(rabbitmq: RabbitMQServer) -> None:
    """And a start brings it back at the same address, which is on the loopback, as all that it listens on."""
    url = rabbitmq.url
    queue = kombu.Queue("usage", routing_key="usage", queue_arguments={"x-queue-type": "quorum"})
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        queue(connection.default_channel).declare()
        for body in ("first", "second"):
            connection.Producer().publish(body, routing_key="usage", delivery_mode=2)
        await_condition(lambda: knows_after_a_crash(rabbitmq, "usage"), 30, "the queue's name to be on disk")
        rabbitmq.kill()
    assert not rabbitmq.running

    rabbitmq.start()

    assert rabbitmq.url == url
    with kombu.Connection(url) as connection:
        kept = [connection.default_channel.basic_get("usage").body for _ in range(2)]
        await_condition(lambda: rabbitmq.lengths("usage") == (0, 2, 2), 30, "both to be handed out")
    assert kept == ["first", "second"]
    assert listens_on(rabbitmq) == {"127.0.0.1"}
    assert stat.S_IMODE(rabbitmq.data_dir.stat().st_mode) == 0o700


def test_when_its_starter_is_killed_no_process_of_it_is_left(tmp_path: Path) -> None:
    """Neither the server nor Erlang's port mapper, which would be a daemon for the whole machine."""
    program = Path(__file__).with_name("rabbitmq_tree.py")
    with subprocess.Popen([sys.executable, program, tmp_path], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        report = json.loads(starter.stdout.readline())
        tree = [ProcessIdentity(pid, began_at) for pid, began_at in report["tree"]]
        assert {"beam.smp", "epmd"} <= set(report["names"])
        assert all(process.alive for process in tree)

        starter.send_signal(signal.SIGKILL)
        starter.wait()

        try:
            await_condition(lambda: not any(process.alive for process in tree), 30, "the tree to end")
        finally:
            for process in tree:
                process.end(signal.SIGKILL)  # what a failure would leave behind


def test_before_the_first_start_there_is_no_address(tmp_path: Path) -> None:
    server = RabbitMQServer(tmp_path / "rabbitmq")

    with pytest.raises(RuntimeError, match="no port before start"):
        _ = server.url
    server.stop()  # nothing to do

    assert not server.running


def test_a_node_that_lost_its_disk_comes_back_at_its_address_and_knows_nothing(rabbitmq: RabbitMQServer) -> None:
    url = rabbitmq.url
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        queue = kombu.Queue("usage", routing_key="usage", queue_arguments={"x-queue-type": "quorum"})
        queue(connection.default_channel).declare()
        connection.Producer().publish("lost", routing_key="usage", delivery_mode=2)

    rabbitmq.lose_data()
    assert not rabbitmq.running
    rabbitmq.start()

    assert rabbitmq.url == url
    with kombu.Connection(url) as connection, pytest.raises(connection.channel_errors, match="no queue"):
        connection.default_channel.queue_declare("usage", passive=True)
