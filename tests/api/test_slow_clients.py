"""Clients that send, or read, a little at a time: they are cut off in time, and others are answered meanwhile."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from starlette.types import Message, Receive, Scope, Send

from api import bodies, bounds, connections
from api.bounds import Bounds
from config.settings import settings
from tests.api.asking import ADMIN, Asker, as_, claims, token
from tests.factories import a_customer, catalogues

WALLET = "/v1/customers/ana/wallet"
#: In place of ten seconds, so that a test need not wait for them.
BOUND = 0.6
#: How long a slow client waits for an answer before it sends its next byte.
PAUSE = 0.05


@pytest.fixture
def impatient(api: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The API, with bounds of less than a second."""
    monkeypatch.setattr(bodies, "SECONDS_MAX", BOUND)
    monkeypatch.setattr(connections, "HEAD_SECONDS_MAX", BOUND)
    catalogues()
    a_customer("ana", credit="10")
    return api


def head(url: str, *, length: int) -> bytes:
    bearer = token(claims("root", ADMIN))
    return (
        f"POST /v1/usage HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nAuthorization: Bearer {bearer}\r\n"
        f"Idempotency-Key: k1\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def dripped(url: str, first: bytes, drops: Iterator[bytes]) -> tuple[bytes, float]:
    """Send something, and then a byte at a time, until the other side ends it: what it answered, and when it ended."""
    where = urlsplit(url)
    answer = b""
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        begun = time.monotonic()
        connection.sendall(first)
        connection.settimeout(PAUSE)
        while True:
            try:
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
            except TimeoutError:
                connection.sendall(next(drops, b""))
            except ConnectionError:
                break
        return answer, time.monotonic() - begun


SLOW: dict[str, Callable[[str], tuple[bytes, Iterator[bytes]]]] = {
    "says nothing at all": lambda _: (b"", iter(())),
    "a head a byte at a time": lambda url: (b"", (bytes([one]) for one in head(url, length=1))),
    "half a head": lambda url: (head(url, length=1)[:40], iter(())),
    "a second head a byte at a time": lambda url: (
        f"GET /health HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n\r\n".encode(),
        (bytes([one]) for one in head(url, length=1)),
    ),
}


@pytest.mark.parametrize("how", SLOW)
def test_whoever_does_not_say_what_they_want_is_cut_off(impatient: str, how: str) -> None:
    first, drops = SLOW[how](impatient)

    answer, seconds = dripped(impatient, first, drops)

    assert BOUND - 0.1 < seconds < BOUND + 5
    assert answer.count(b"HTTP/1.1 ") == (1 if b"GET" in first else 0)


@pytest.mark.parametrize("path", ["/v1/usage", "/webhooks/stripe"])
def test_a_body_a_byte_at_a_time_is_cut_off(impatient: str, path: str) -> None:
    """As long as bytes come, a bound between two of them would never end it: this is for the whole body."""
    first = head(impatient, length=10_000).replace(b"/v1/usage", path.encode())

    answer, seconds = dripped(impatient, first, (b"x" for _ in range(10_000)))

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()
    assert BOUND - 0.1 < seconds < BOUND + 5


def test_a_head_without_end_is_cut_off(impatient: str) -> None:
    """However fast it comes."""
    first = f"GET /v1/info HTTP/1.1\r\nHost: {urlsplit(impatient).netloc}\r\nX-Much: ".encode() + b"x" * 200_000

    answer, seconds = dripped(impatient, first, iter(()))

    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert seconds < BOUND + 5


def test_others_are_answered_while_many_are_slow(impatient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whom more are at it than may wait for a thread: who sends a body does not wait for one."""
    monkeypatch.setattr(bounds, "WAITING_MAX", 4)
    monkeypatch.setattr(bodies, "SECONDS_MAX", 20)
    where = urlsplit(impatient)
    root = as_(impatient, ADMIN)
    with ExitStack() as open_:
        for _ in range(50):
            slow = open_.enter_context(socket.create_connection((where.hostname, where.port), timeout=30))
            slow.sendall(head(impatient, length=100) + b"{")
        begun = time.monotonic()

        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(lambda _: root.get(WALLET).status, range(20)))

        assert statuses == [200] * 20
        assert time.monotonic() - begun < 10


def test_who_reads_an_answer_slowly_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made; what is left of it is a matter between two sockets."""
    monkeypatch.setattr(bounds, "WAITING_MAX", 1)
    answered: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        answered.append(scope["path"])

    async def story() -> None:
        reading, has_read = asyncio.Event(), asyncio.Event()

        async def slowly(_: Message) -> None:
            reading.set()
            await has_read.wait()

        async def at_once(_: Message) -> None: ...

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        def asked(path: str, send: Callable[[Message], Any]) -> Any:
            return bounded({"type": "http", "method": "GET", "path": path, "headers": []}, receive, send)

        bounded = Bounds(app)
        slow = asyncio.create_task(asked("/v1/slow", slowly))
        await reading.wait()
        await asked("/v1/other", at_once)
        has_read.set()
        await slow

    asyncio.run(story())

    assert answered == ["/v1/other", "/v1/slow"]


def test_who_waits_for_a_thread_stands_in_a_line_that_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "WAITING_MAX", 1)
    sent: list[int] = []

    async def story() -> None:
        working, done = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            del scope, receive
            working.set()
            await done.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent.append(message["status"])

        async def receive() -> Message:
            return {"type": "http.disconnect"}

        scope = {"type": "http", "method": "GET", "path": "/v1/info", "headers": []}
        bounded = Bounds(app)
        first = asyncio.create_task(bounded(dict(scope), receive, send))
        await working.wait()
        await bounded(dict(scope), receive, send)
        done.set()
        await first
        await bounded(dict(scope), receive, send)

    asyncio.run(story())

    assert sent == [503, 200, 200]


def test_a_request_that_is_worked_on_for_long_is_not_cut_off(impatient: str) -> None:
    """The bounds are for what a client sends, not for what we do with it."""
    root = as_(impatient, ADMIN)
    with psycopg.connect(settings().required("database_url")) as holding, ThreadPoolExecutor(1) as pool:
        holding.execute("LOCK TABLE wallets")
        answered = pool.submit(root.get, WALLET)
        with pytest.raises(TimeoutError):
            answered.result(timeout=2 * BOUND)
        holding.rollback()

        assert answered.result().status == 200


def test_the_bounds_are_those_of_the_documentation() -> None:
    assert (bodies.SECONDS_MAX, connections.HEAD_SECONDS_MAX, bounds.WAITING_MAX) == (10, 10, 200)


def test_a_whole_request_is_none_too_slow(impatient: str) -> None:
    assert Asker(impatient, None).get("/v1/info").status == 200
