"""The table of commands, which says where each of them is without importing it."""

import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest
import typer

import cli
from cli.main import COMMANDS, GROUPS, PLACES
from sandbox.stack import ROOT

#: They are parts of groups that stand in other modules.
WITHIN_OTHERS = {"cli.shadow:app"}

#: What it takes long to import.
HEAVY = ("sqlalchemy", "psycopg", "stripe", "celery", "fastapi", "services", "db")

SHOW_IMPORTED = """
import sys
from cli.main import app
try:
    app([{name!r}, "--help"])
except SystemExit:
    sys.stderr.write(" ".join({{name.partition(".")[0] for name in sys.modules}}))
"""


def test_every_command_of_a_module_is_in_the_table() -> None:
    """And none that it does not have."""
    found: dict[str, str] = {}
    for module in set(COMMANDS.values()):
        whole = typer.Typer()
        whole.add_typer(import_module(module).app)
        found |= dict.fromkeys(typer.main.get_group(whole).commands, module)

    assert found == COMMANDS


def test_every_group_of_a_module_is_in_the_table() -> None:
    apps = {
        f"{module.name}:{name}"
        for module in pkgutil.iter_modules(cli.__path__, "cli.")
        if module.name not in {"cli.main", "cli.__main__"}
        for name, value in vars(import_module(module.name)).items()
        if isinstance(value, typer.Typer)
    }

    placed = {place if ":" in place else f"{place}:app" for place in PLACES.values()}
    assert apps == placed | WITHIN_OTHERS
    assert COMMANDS.keys() & GROUPS.keys() == set()


@pytest.mark.parametrize("name", ["worker", "beat", "api"])
def test_what_becomes_another_process_imports_nothing_that_takes_long(name: str) -> None:
    command = [sys.executable, "-c", SHOW_IMPORTED.format(name=name)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "Usage: " in ended.stdout
    assert set(ended.stderr.split()) & set(HEAVY) == set()
