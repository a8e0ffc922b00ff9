"""Serving the double on a loopback address."""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandbox.serving import QuickServer
from sandbox.stripe_double.app import StripeDouble
from sandbox.stripe_double.control_api import control_routes
from sandbox.stripe_double.webhook_endpoints import add_endpoint

LOOPBACK = "127.0.0.1"
#: Longer than a worker pauses between two payments, so that its connections live on.
KEEP_ALIVE_SECONDS = 75
SHUTDOWN_SECONDS = 0.2


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


class _Protocol(H11Protocol):
    """HTTP by uvicorn; a request may end its connection, as `request.state.drop()`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        # Each request's state is a copy of this.
        self.app_state = {**self.app_state, "drop": transport.abort}


class Server(QuickServer):
    """The double, served; for a while it may refuse all connections."""

    def __init__(self, double: StripeDouble, on_ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            double.app(control_routes(double, self.refuse_connections)),
            http=_Protocol,
            log_level="warning",
            lifespan="off",
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        super().__init__(config, on_ready, SHUTDOWN_SECONDS)
        self._refusing: asyncio.Task[None] | None = None

    async def refuse_connections(self, seconds: float) -> None:
        """End all connections and refuse new ones, as if nothing served here; then serve at the same address again.

        The port is free meanwhile: should another program take it, the double is not reached again.
        """
        if self._refusing is None or self._refusing.done():
            self._refusing = asyncio.ensure_future(self._refuse(seconds))

    async def _refuse(self, seconds: float) -> None:
        addresses = [one.getsockname()[:2] for server in self.servers for one in server.sockets]
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            cast("_Protocol", connection).transport.abort()
        await asyncio.sleep(seconds)
        serving = asyncio.get_running_loop().create_server
        self.servers = [await serving(self._protocol, sock=bind(host, port)) for host, port in addresses]

    def _protocol(self) -> asyncio.Protocol:
        return _Protocol(self.config, self.server_state, self.lifespan.state)


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
        server.end()
        thread.join()
        listening.close()


def run(port: int, announce: Callable[[str], None], webhook_url: str | None = None, webhook_secret: str = "") -> None:
    """Serve a double in this thread until a signal ends it; `announce` is told its address once it serves.

    Raises OSError when the port is taken.
    """
    double = StripeDouble()
    if webhook_url:
        add_endpoint(double.store, webhook_url, webhook_secret, ["*"])
    listening = bind(LOOPBACK, port)
    url = base_url(listening)
    asyncio.run(Server(double, lambda: announce(url)).serve([listening]))
