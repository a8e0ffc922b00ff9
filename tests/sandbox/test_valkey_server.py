"""The Valkey of the sandbox keeps what it was given, refuses rather than drops, and stays on the loopback."""

import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from sandbox.processes import ConditionNotMet
from sandbox.valkey import ValkeyServer


@contextmanager
def client_of(server: ValkeyServer) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(server.url, decode_responses=True)
    try:
        yield client
    finally:
        client.close()


def test_a_restart_keeps_the_address_and_the_queue(valkey: ValkeyServer) -> None:
    url = valkey.url
    with client_of(valkey) as client:
        client.rpush("usage", "first", "second")

    valkey.restart()

    assert valkey.url == url
    with client_of(valkey) as client:
        assert client.lrange("usage", 0, -1) == ["first", "second"]


def test_a_kill_loses_nothing_that_was_acknowledged(valkey: ValkeyServer) -> None:
    with client_of(valkey) as client:
        client.rpush("usage", "first")
        valkey.kill()
    assert not valkey.running

    valkey.start()

    with client_of(valkey) as client:
        assert client.lrange("usage", 0, -1) == ["first"]


def test_it_is_set_up_as_a_broker(valkey: ValkeyServer) -> None:
    with client_of(valkey) as client:
        shown = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "bind", "protected-mode", "save")

    assert shown == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1",
        "protected-mode": "yes",
        "save": "",
    }
    assert stat.S_IMODE(valkey.data_dir.stat().st_mode) == 0o700


def test_several_servers_run_at_once(valkey: ValkeyServer, tmp_path: Path) -> None:
    with ValkeyServer(tmp_path / "other") as other, client_of(other) as client:
        client.set("whose", "other's")
        with client_of(valkey) as first:
            assert first.get("whose") is None


def test_a_port_that_is_taken_is_passed_over_at_the_first_start(valkey: ValkeyServer, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]

    with ValkeyServer(tmp_path / "other", candidate_ports=[valkey.port, free]) as other:
        assert other.port == free


def test_a_port_that_was_taken_while_it_was_down_is_an_error_and_no_new_address(valkey: ValkeyServer) -> None:
    valkey.stop()
    with socket.create_server(("127.0.0.1", valkey.port)), pytest.raises(ConditionNotMet, match="taken"):
        valkey.start()

    valkey.start()

    assert valkey.running


def test_before_the_first_start_there_is_no_address(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path / "valkey")

    with pytest.raises(RuntimeError, match="no port before start"):
        _ = server.url
    server.stop()  # nothing to do

    assert not server.running
