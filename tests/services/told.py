"""A tenant's server, as far as webhooks go: it verifies signatures by the specification's words, and remembers."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Told(NamedTuple):
    """A message that came."""

    message_id: str
    timestamp: int
    signatures: list[str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        signed = f"{self.message_id}.{self.timestamp}.{self.body}".encode()
        mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{mac}" in self.signatures


class Tenant:
    """What came, in the order of arrival; `answers` are given first, then 204."""

    def __init__(self) -> None:
        self.url = ""
        self.told: list[Told] = []
        self.answers: list[int] = []
        self.before_answer: Callable[[], None] = lambda: None

    def receive(self, message: Told) -> int:
        self.told.append(message)
        self.before_answer()
        return self.answers.pop(0) if self.answers else 204


@contextmanager
def a_tenants_server() -> Iterator[Tenant]:
    """A server on a free port, until the block ends."""
    tenant = Tenant()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            said = self.headers
            signatures = said["webhook-signature"].split(" ")
            status = tenant.receive(Told(said["webhook-id"], int(said["webhook-timestamp"]), signatures, body))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", tenant.url)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tenant.url = f"http://127.0.0.1:{server.server_port}/hooks"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield tenant
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
