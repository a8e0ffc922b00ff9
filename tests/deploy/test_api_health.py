"""`python -m api.health` against the real API, against nobody, and against somebody else."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

import pytest

from api import health
from config.settings import process_environment, settings
from sandbox.stack import ROOT
from tests.api.serving import served_api
from tests.ports import free_port


class _Unwell(BaseHTTPRequestHandler):
    """Answers everything with 503."""

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - as its base has it
        """Say nothing."""


@pytest.fixture
def unwell_port() -> Iterator[int]:
    """Where a server runs that is not well."""
    with HTTPServer(("127.0.0.1", 0), _Unwell) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def api_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """To say where the API listens; forgotten with the test."""
    settings.cache_clear()
    yield monkeypatch
    settings.cache_clear()


def listen(at: pytest.MonkeyPatch, port: int, host: str = "127.0.0.1") -> None:
    at.setenv("CENTAVO_API_HOST", host)
    at.setenv("CENTAVO_API_PORT", str(port))
    settings.cache_clear()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_an_api_that_answers_is_well_whichever_proxy_the_environment_names(
    host: str, api_at: pytest.MonkeyPatch
) -> None:
    with served_api() as url:
        port = urlsplit(url).port
        assert port is not None
        listen(api_at, port, host)
        api_at.setenv("http_proxy", "http://127.0.0.1:1")

        assert health.report() == (True, f"api answers at 127.0.0.1 port {port}")


def test_an_api_that_does_not_answer_is_not_well(api_at: pytest.MonkeyPatch) -> None:
    port = free_port()
    listen(api_at, port)

    is_well, sentence = health.report()

    assert not is_well
    assert sentence.startswith(f"api does not answer at 127.0.0.1 port {port}: ")


def test_whoever_answers_anything_but_200_is_not_well(unwell_port: int, api_at: pytest.MonkeyPatch) -> None:
    listen(api_at, unwell_port)

    assert health.report() == (False, f"api is not well at 127.0.0.1 port {unwell_port}: it answers 503")


def test_its_exit_status_says_it_to_docker(unwell_port: int) -> None:
    env = process_environment() | {"CENTAVO_API_HOST": "127.0.0.1", "CENTAVO_API_PORT": str(unwell_port)}

    found = subprocess.run([sys.executable, "-m", "api.health"], cwd=ROOT, env=env, capture_output=True, check=False)

    assert (found.returncode, found.stderr) == (1, b"")
