"""`python -m bench.webhooks`: how long Stripe waits for an answer to a webhook, at a steady rate.

The API runs in a process of its own, as `centavo api` starts it, on a Postgres and a Valkey of its own with
fsync on; deliveries are signed, each opens a connection of its own (as Stripe's mostly do), and is timed from the
moment at which it was due, so that a queue on our side counts as well.
"""

import http.client
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import stripe
import typer

from bench.measure import percentile
from config.settings import process_environment
from db.migrate import migrate
from sandbox.postgres import PostgresServer
from sandbox.processes import ManagedProcess
from sandbox.stripe_double.server import bind
from sandbox.valkey import ValkeyServer

SECRET = "whsec_bench"
PATH = "/webhooks/stripe"
DATABASE = "webhooks"
SENDERS = 16
WARM_UP = 50
BODY_BYTES = 4_000
READY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Milliseconds from the moment a delivery was due to its answer."""

    deliveries: int
    refused: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    #: How late the sender itself was: on a machine that is busy with something else, much of the rest is that.
    late_p99_ms: float


def measure(port: int, *, per_second: int, seconds: int) -> Figures:
    """Deliver at a steady rate."""
    number = per_second * seconds
    for n in range(WARM_UP):
        deliver(port, f"warm_{n}")
    began = time.perf_counter() + 0.1

    def one(n: int) -> tuple[float, float, int]:
        due = began + n / per_second
        time.sleep(max(0.0, due - time.perf_counter()))
        late = time.perf_counter() - due
        status = deliver(port, f"evt_{n}")
        return late * 1000, (time.perf_counter() - due) * 1000, status

    with ThreadPoolExecutor(SENDERS) as senders:
        answers = list(senders.map(one, range(number)))
    late = [one_late for one_late, _, _ in answers]
    waits = [wait for _, wait, _ in answers]
    refused = sum(status != http.client.OK for _, _, status in answers)
    return Figures(number, refused, percentile(waits, 0.5), percentile(waits, 0.99), max(waits), percentile(late, 0.99))


def deliver(port: int, event_id: str) -> int:
    """One signed delivery, of the size that Stripe's have; the status of its answer."""
    intent = {"id": "pi_1", "object": "payment_intent", "metadata": {}, "padding": "x" * BODY_BYTES}
    event = {"id": event_id, "object": "event", "type": "payment_intent.succeeded", "created": int(time.time())}
    body = json.dumps({**event, "data": {"object": intent}})
    headers = {"Stripe-Signature": stripe.WebhookSignature.generate_signature_header(body, SECRET)}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        connection.request("POST", PATH, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@contextmanager
def api(
    database_url: str, broker_url: str, logs: Path, serve: str = "from cli.api import api as serve", **more: str
) -> Iterator[int]:
    """The API, or whatever else an import calls `serve`, in a process of its own; its port."""
    with bind() as free:
        port: int = free.getsockname()[1]
    said = {
        "DATABASE_URL": database_url,
        "BROKER_URL": broker_url,
        "STRIPE_WEBHOOK_SECRETS": SECRET,
        "ENVIRONMENT": "sandbox",
        "LOG_LEVEL": "WARNING",
    }
    environment = process_environment() | {f"CENTAVO_{name}": value for name, value in (said | more).items()}
    command = [sys.executable, "-c", f"{serve}; serve('127.0.0.1', {port})"]
    process = ManagedProcess.start("api", command, logs / "api.log", env=environment)
    try:
        process.wait_ready(lambda: _answers(port), READY_SECONDS)
        yield port
    finally:
        process.stop(grace_seconds=15)


def _answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False


def main(
    per_second: Annotated[int, typer.Option(min=1, max=500, help="Deliveries a second.")] = 100,
    seconds: Annotated[int, typer.Option(min=1, max=120, help="For how long.")] = 20,
) -> None:
    """Measure `POST /webhooks/stripe`, on loopback."""
    with tempfile.TemporaryDirectory(prefix="centavo-bench-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        postgres = PostgresServer(home / "postgres")
        with ValkeyServer(home / "valkey") as valkey:
            postgres.start()
            try:
                postgres.create_database(DATABASE)
                migrate(postgres.uri(DATABASE))
                with api(postgres.uri(DATABASE), valkey.url, home) as port:
                    figures = measure(port, per_second=per_second, seconds=seconds)
            finally:
                postgres.destroy()
    print(f"{figures.deliveries} deliveries at {per_second}/s, {figures.refused} refused; {os.cpu_count()} cores")
    print(f"p50 {figures.p50_ms:.1f} ms, p99 {figures.p99_ms:.1f} ms, max {figures.max_ms:.1f} ms")
    print(f"the sender itself was late by {figures.late_p99_ms:.1f} ms (p99); more than a few say: a busy machine")


if __name__ == "__main__":
    typer.run(main)
