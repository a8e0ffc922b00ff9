"""docs/operations.md agrees with the settings, the compose file and the command line."""

import re
import shlex
from typing import Literal, get_args, get_origin

import annotated_types
import pytest
from pydantic.fields import FieldInfo

from config.settings import Settings
from payments.gateway import EVENT_TYPES
from sandbox.stack import ROOT
from sandbox.stripe_double.version import STRIPE_VERSION
from tests.cli.conftest import Command
from tests.deploy.files import services, variables

TEXT = (ROOT / "docs" / "operations.md").read_text()


def table(first_column: str) -> dict[str, list[str]]:
    """The rows of the table that has this first column: the first cell, without ticks, to the others."""
    _, _, rest = TEXT.partition(f"| {first_column} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]
    return {first: others for first, *others in cells}


def default_of(field: FieldInfo) -> str:
    return "none" if field.default is None else str(field.default)


def allowed_by(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    match field.metadata:
        case []:
            return ""
        case [annotated_types.Ge(ge=low), annotated_types.Le(le=high)]:
            return f"{low} to {high}"
        case [annotated_types.Ge(ge=low)]:
            return f"at least {low}"
        case [annotated_types.Gt(gt=low)]:
            return f"more than {low}"
    raise AssertionError(f"say in words what {field.metadata} allows")


def test_every_setting_stands_there_in_order_with_its_default_and_its_bounds() -> None:
    expected = {
        f"CENTAVO_{name.upper()}": [default_of(field), allowed_by(field)]
        for name, field in Settings.model_fields.items()
    }

    actual = {name: cells[:2] for name, cells in table("setting").items()}
    assert list(actual.items()) == list(expected.items())


def test_every_setting_is_explained() -> None:
    assert [name for name, cells in table("setting").items() if len(cells[2]) < 10] == []


def test_every_variable_of_the_compose_file_stands_there_with_its_default() -> None:
    expected = {
        name: text if kind == "-" else "none" for name, ways in variables().items() for kind, text in sorted(ways)[:1]
    }

    assert {name: cells[0] for name, cells in table("variable").items()} == expected


def test_every_service_stands_there() -> None:
    assert set(table("service")) == set(services())


def commands() -> list[str]:
    """Each `centavo …` that the document tells to run."""
    words = "migrate|worker|beat|api|status|audit|parked|payments|alerts|cards"
    told = re.findall(rf"centavo ((?:{words})\b[^`\n]*)", TEXT)
    told += re.findall(r"run --rm (?:usage|migrate|payments) ?(\w.*)", TEXT)
    return sorted({command.strip() for command in told})


@pytest.mark.parametrize("command", commands())
def test_the_commands_that_it_tells_to_run_exist(command: str, forked: Command) -> None:
    assert forked(*shlex.split(command, comments=True), "--help").status == 0


def test_the_log_records_that_it_tells_to_alert_on_are_written() -> None:
    sources = [path.read_text() for room in ("services", "tasks", "worker") for path in (ROOT / room).glob("*.py")]

    for record in ("balance inconsistency", "waiting", "the broker is away", "stripe refuses our request"):
        assert f"`{record}`" in TEXT
        assert any(f'("{record}"' in source for source in sources), record
