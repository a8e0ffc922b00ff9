"""Whether Stripe can be reached: any answer says so, silence does not, and it is asked within bounds."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from payments.gateway import GatewayUnavailable
from payments.reachability import reach


@contextmanager
def answering(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as its base has it
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [200, 401, 404, 429])
def test_any_answer_of_its_own_says_that_it_is_there(status: int) -> None:
    with answering(status) as base:
        assert reach(base, 5) == status


@pytest.mark.parametrize("status", [500, 503])
def test_a_failure_of_its_own_says_that_it_is_not(status: int) -> None:
    with answering(status) as base, pytest.raises(GatewayUnavailable, match=str(status)):
        reach(base, 5)


def test_the_double_is_there(stripe_double: str) -> None:
    assert reach(stripe_double, 5) < 500


def test_nobody_at_the_address() -> None:
    with pytest.raises(GatewayUnavailable, match="can't be reached"):
        reach("http://127.0.0.1:1", 5)


def test_a_silent_one_is_not_waited_for_beyond_the_bound() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(GatewayUnavailable):
            reach(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.3)

    assert time.monotonic() - begun < 5
