"""Serving the double on a loopback address."""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from sandbox.stripe_double.app import StripeDouble

LOOPBACK = "127.0.0.1"
#: Longer than a worker pauses between two payments, so that its connections live on.
KEEP_ALIVE_SECONDS = 75
SHUTDOWN_SECONDS = 1


class NotLoopback(ValueError):
    """The double answers on loopback only: it takes any test key, and would take money for no one."""


def bind(host: str = LOOPBACK, port: int = 0) -> socket.socket:
    """A listening socket on a loopback address; port 0 picks a free one.

    Raises NotLoopback for any other address or name.
    """
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise NotLoopback(f"{host!r} is no loopback address; the Stripe double serves 127.0.0.1 or ::1 only.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches off Nagle's delay only where it is: without it
    # an answer takes 44 ms instead of 1.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except OSError:
        listening.close()
        raise
    return listening


def base_url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Uvicorn, telling when it serves."""

    def __init__(self, double: StripeDouble, on_ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                double.app(),
                log_level="warning",
                lifespan="off",
                ws="none",
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


@contextmanager
def served(double: StripeDouble, port: int = 0) -> Iterator[str]:
    """The double in a thread of this process, for tests: gives its base URL, ends with the block."""
    ready = threading.Event()
    listening = bind(LOOPBACK, port)
    server = Server(double, ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="stripe-double")
    thread.start()
    try:
        if not ready.wait(timeout=15):
            raise RuntimeError("The Stripe double did not start within 15 s.")
        yield base_url(listening)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
