"""A socket that several processes listen at: how one of them takes connections. For several, see `test_processes`."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import pytest

from api.accepting import Listening, Loop

Story = Callable[[Listening], Awaitable[None]]


@pytest.fixture
def at() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


class _Greeting(asyncio.Protocol):
    """Says something, and ends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writing = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        writing.write(b"here")
        writing.close()


async def greeted(at: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(*at.getsockname())
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


def told(at: socket.socket, story: Story) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Greeting, sock=at, backlog=100, ssl=None)
        assert isinstance(server, Listening)
        await story(server)
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(serve())


def test_whoever_comes_is_taken(at: socket.socket) -> None:
    async def story(server: Listening) -> None:
        assert server.sockets == (at,)
        assert await asyncio.gather(*(greeted(at) for _ in range(40))) == [b"here"] * 40

    told(at, story)


def test_when_it_has_closed_it_takes_no_more(at: socket.socket) -> None:
    """Another process, which listens there still, does."""

    async def story(server: Listening) -> None:
        assert await greeted(at) == b"here"
        server.close()
        server.close()
        assert server.sockets == ()
        with socket.create_connection(at.getsockname(), timeout=10) as waiting:
            other = Listening(asyncio.get_running_loop(), _Greeting, at)
            assert await greeted(at) == b"here"
            other.close()
            assert waiting.recv(16) == b"here"

    told(at, story)


def test_a_machine_that_has_nothing_left_is_not_the_end_of_listening(
    at: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.accepting.PAUSE_SECONDS", 0.01)
    real, failed = socket.socket.accept, list[int]()

    def accept(self: socket.socket) -> object:
        if len(failed) < 3:
            failed.append(1)
            raise OSError(24, "Too many open files")
        return real(self)

    monkeypatch.setattr(socket.socket, "accept", accept)

    async def story(_: Listening) -> None:
        assert await greeted(at) == b"here"

    told(at, story)

    assert len(failed) == 3
