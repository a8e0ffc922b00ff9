"""Connections that ask in turns: what is counted is whole answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from bench.clients import run

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
REFUSAL = b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"


def _serve(connection: socket.socket, asked: list[bytes]) -> None:
    """Answer each request in two pieces, and a refusal to what asks for it."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Who has asked for long enough goes, and leaves its last answers behind.
    with connection, suppress(OSError):
        while request := connection.recv(1024):
            asked.append(request)
            answer = REFUSAL if b"refuse" in request else ANSWER
            connection.sendall(answer[:30])
            connection.sendall(answer[30:])


@pytest.fixture
def server() -> Iterator[tuple[int, list[bytes]]]:
    asked: list[bytes] = []
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            for _ in range(2):
                connection, _address = listening.accept()
                threads.append(threading.Thread(target=_serve, args=(connection, asked)))
                threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield listening.getsockname()[1], asked
        accepting.join(5)
    for thread in threads:
        thread.join(5)


def test_answers_are_counted_as_a_whole_and_refusals_told(server: tuple[int, list[bytes]]) -> None:
    port, asked = server

    found = run(port, [b"GET /a HTTP/1.1\r\n\r\n", b"GET /refuse HTTP/1.1\r\n\r\n"], 2, 0.3, 0.05)

    assert found["per_second"] > 10
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert 0 < found["refused"] < len(asked)
    assert {request.split()[1] for request in asked} == {b"/a", b"/refuse"}
