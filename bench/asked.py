"""`can_afford` over HTTP while a worker takes in usage, beside a bare route that reads one row."""

import base64
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jwt

from bench import workload
from bench.drain import ROOT, Target, charged, event_of, worker
from bench.webhooks import api
from centavo import Producer, UsageEvent
from config import clock
from config.settings import process_environment
from sandbox.processes import await_condition

CONNECTIONS = 16
#: One for each core of the machine that figures are asked of.
PROCESSES = 2
#: What each process logs when it begins to answer.
BEGUN = "Application startup complete"
EVENTS_PER_SECOND = 2_000
WARM_UP_SECONDS = 2.0
READY_SECONDS = 60.0
#: Requests that are asked in turns: of so many customers, each with a cost and with items.
ASKED_CUSTOMERS = 500
#: In steps of so long events are emitted.
STEP_SECONDS = 0.01
CHILDREN = 1
BARE = "from bench.bare import serve"
QUESTIONS = (
    {"cost": "0.25", "currency": "USD"},
    {
        "items": [
            {"category": "llm_prompt", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": "2000"},
            {"category": "llm_completion", "provider": "openai", "model": "gpt-4", "unit": "token", "quantity": "500"},
        ]
    },
)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a route reached: requests a second, and milliseconds from a request to its whole answer."""

    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    refused: int
    charged_per_second: float
    """Events that the worker took in meanwhile."""


class Issuer:
    """Signs the token that is asked with."""

    def __init__(self, home: Path) -> None:
        secret = secrets.token_bytes(32)
        said = {
            "kty": "oct",
            "kid": "bench",
            "alg": "HS256",
            "k": base64.urlsafe_b64encode(secret).decode().rstrip("="),
        }
        self.keys = home / "keys.json"
        self.keys.write_text(json.dumps({"keys": [said]}), encoding="utf-8")
        claims = {"tenant_id": workload.TENANT, "sub": "bench", "capabilities": ["billing.view"]}
        expiring = claims | {"exp": int(time.time()) + 86_400}
        self.token = jwt.encode(expiring, secret, algorithm="HS256", headers={"kid": "bench"})


def can_afford(target: Target, home: Path, *, seconds: float, first: int) -> Answers:
    """Ask the API whether customers can afford something: half of the questions name a cost, half items."""
    issuer = Issuer(home)
    requests = []
    for number in range(ASKED_CUSTOMERS):
        for question in QUESTIONS:
            body = json.dumps(question)
            path = f"/v1/customers/{workload.customer_name(number)}/affordability"
            headers = {"Authorization": f"Bearer {issuer.token}", "Content-Type": "application/json"}
            requests.append(_request("POST", path, headers, body))
    with _served(target, home, API_JWT_KEYS=str(issuer.keys)) as port:
        return _measured(target, port, requests, seconds, first)


def bare(target: Target, home: Path, *, seconds: float, first: int) -> Answers:
    """Ask the bare route."""
    requests = [_request("GET", f"/rows/{workload.customer_name(number)}", {}, "") for number in range(ASKED_CUSTOMERS)]
    with _served(target, home, serve=BARE) as port:
        return _measured(target, port, requests, seconds, first)


@contextmanager
def _served(target: Target, home: Path, **more: str) -> Iterator[int]:
    """The port at which all processes answer."""
    said = {"ENVIRONMENT": "production", "API_PROCESSES": str(PROCESSES), "LOG_LEVEL": "INFO"}
    with api(target.database_url, target.broker_url, home, **said | more) as port:
        log = home / "api.log"
        await_condition(
            lambda: log.read_text(encoding="utf-8").count(BEGUN) == PROCESSES, READY_SECONDS, "all processes to answer"
        )
        yield port


def _measured(target: Target, port: int, requests: list[str], seconds: float, first: int) -> Answers:
    said = {"port": port, "requests": requests, "connections": CONNECTIONS, "seconds": seconds}
    asking = json.dumps(said | {"warm_up_seconds": WARM_UP_SECONDS})
    events = _events(target, first, int(EVENTS_PER_SECOND * (seconds + 3 * WARM_UP_SECONDS)))
    with worker(target.database_url, target.broker_url, CHILDREN), _emitting(target, events):
        before, began = charged(target.database_url), time.monotonic()
        clients = subprocess.run(
            [sys.executable, "-m", "bench.clients"],
            input=asking,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
            env=process_environment(),
        )
        taken_in = charged(target.database_url) - before
        took = time.monotonic() - began
    figures: Mapping[str, float] = json.loads(clients.stdout)
    return Answers(**figures, charged_per_second=taken_in / took)  # type: ignore[arg-type]


def _events(target: Target, first: int, number: int) -> list[UsageEvent]:
    """Events to emit, made before the clock starts: so emitting them costs little."""
    now = clock.now()
    return [event_of(usage, now) for usage in workload.usages(first, number, target.customers)]


@contextmanager
def _emitting(target: Target, events: list[UsageEvent]) -> Iterator[None]:
    """Emit at the pace from a thread of this process, once the worker has taken in a first event."""
    is_over = threading.Event()
    before = charged(target.database_url)
    with Producer(target.broker_url) as producer:
        producer.emit(events.pop())
        producer.flush(READY_SECONDS)
        await_condition(lambda: charged(target.database_url) > before, READY_SECONDS, "the worker's first event")

    def emit() -> None:
        step = int(EVENTS_PER_SECOND * STEP_SECONDS)
        due = time.monotonic()
        with Producer(target.broker_url) as producer:
            for at in range(0, len(events), step):
                for event in events[at : at + step]:
                    producer.emit(event)
                due += STEP_SECONDS
                if is_over.wait(max(0.0, due - time.monotonic())):
                    return

    thread = threading.Thread(target=emit, name="emitting")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _request(method: str, path: str, headers: Mapping[str, str], body: str) -> str:
    said = {"Host": "bench", **headers, "Content-Length": str(len(body.encode()))}
    return (
        f"{method} {path} HTTP/1.1\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in said.items())
        + f"\r\n{body}"
    )
