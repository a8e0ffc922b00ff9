"""A webhook endpoint for tests: it verifies what comes with Stripe's own library, and remembers."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import stripe

from sandbox.processes import await_condition

SECRET = "whsec_test"


class Receiver:
    """What came, in the order of arrival; `answers` are given first, then 200. Unverified is a 400."""

    def __init__(self) -> None:
        self.url = ""
        self.events: list[stripe.Event] = []
        self.refused: list[str] = []
        self.answers: list[int] = []
        self.before_answer: Callable[[stripe.Event], None] = lambda _event: None

    def receive(self, body: bytes, signature: str) -> int:
        try:
            event = stripe.Webhook.construct_event(body, signature, SECRET)
        except stripe.SignatureVerificationError as error:
            self.refused.append(str(error))
            return 400
        self.before_answer(event)
        self.events.append(event)
        return self.answers.pop(0) if self.answers else 200

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def wait_for(self, count: int) -> None:
        await_condition(lambda: len(self.events) >= count, 30, f"{count} webhooks; {self.types()} came")


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port, until the block ends."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(receiver.receive(body, self.headers["Stripe-Signature"]))
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/webhooks/stripe"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
