"""`centavo api` with several processes at one address."""

import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from config.settings import process_environment
from sandbox.process_tree import descendants, is_running, send_signal
from sandbox.processes import await_condition
from tests.api.asking import VIEW, Asker, as_
from tests.api.serving import Server, api_process
from tests.factories import a_customer, catalogues

BEGUN = "Application startup complete"
WALLET = "/v1/customers/{customer_id:path}/wallet"


def begun(server: Server) -> int:
    return server.log().count(BEGUN)


def wallets_asked(url: str) -> float:
    """How many requests of a wallet have been counted, by whoever is asked for it."""
    text = Asker(url, None).get("/metrics").body.decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "centavo_api_requests_total" and sample.labels["route"] == WALLET
    )


def test_several_processes_answer_count_together_and_end_together(
    billing_database: str, jwt_keys: Path, tmp_path: Path
) -> None:
    assert billing_database
    catalogues()
    a_customer("ana", credit="10")
    with api_process(tmp_path, API_PROCESSES="2") as server:
        await_condition(lambda: begun(server) == 2, 30, "both to begin")
        # Each is a connection of its own: whoever is free takes it.
        statuses = [as_(server.url, VIEW).get("/v1/customers/ana/wallet").status for _ in range(40)]
        counted = [wallets_asked(server.url) for _ in range(10)]

        serving = [one for one in descendants(server.process.pid) if "spawn_main" in " ".join(one.cmdline())]
        send_signal(serving[0].pid, signal.SIGKILL)
        await_condition(lambda: begun(server) == 3, 30, "another to take its place")
        statuses.append(as_(server.url, VIEW).get("/v1/customers/ana/wallet").status)
        everybody = descendants(server.process.pid)

        assert server.process.stop(grace_seconds=15) == 0

    assert statuses == [200] * 41
    assert counted == [40] * 10
    assert [one for one in everybody if is_running(one.pid)] == []


def test_connections_that_come_at_once_are_shared_by_all(billing_database: str, tmp_path: Path) -> None:
    """Else one process answers everybody, and the other's core looks on."""
    assert billing_database
    with api_process(tmp_path, API_PROCESSES="2") as server:
        await_condition(lambda: begun(server) == 2, 60, "both to begin")
        serving = [one for one in descendants(server.process.pid) if "spawn_main" in " ".join(one.cmdline())]
        where = urlsplit(server.url)
        port = where.port

        def held() -> list[int]:
            each = [one.net_connections("tcp") for one in serving]
            return [sum(one.laddr.port == port and one.status == "ESTABLISHED" for one in found) for found in each]

        rounds = []
        for _ in range(8):
            with ExitStack() as kept:
                for _ in range(16):
                    kept.enter_context(socket.create_connection((where.hostname, port), timeout=10))
                await_condition(lambda: sum(held()) == 16, 10, "all to be taken")
                rounds.append(min(held()))
            await_condition(lambda: sum(held()) == 0, 10, "all to be gone")

    # Eight each, nearly always, on a machine that has nothing else to do; none, where one takes all that wait.
    assert sorted(rounds)[len(rounds) // 2] >= 4, rounds


def test_an_address_that_is_taken_is_said_and_ends_it(billing_database: str, tmp_path: Path) -> None:
    assert billing_database
    with api_process(tmp_path) as first:
        command = [sys.executable, "-m", "cli", "api", "--port", first.url.rpartition(":")[2]]
        env = process_environment() | {"CENTAVO_API_PROCESSES": "2"}

        ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode != 0
    assert "address already in use" in (ended.stdout + ended.stderr).lower()
