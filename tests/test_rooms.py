"""What import directions can't say about the rooms, read from the source."""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: The rooms that run in production; sandbox and bench are for trying things out.
PRODUCT = ("sdk/src/centavo", "billing", "config", "db", "payments", "services", "tasks", "worker", "api", "cli")
ROOMS = (*PRODUCT, "sandbox", "bench", "chaos")

#: One table after the other: a list to look things up in, not code to follow.
LISTS = {"db/schema/metering.py", "db/schema/collecting.py"}
MIGRATIONS = "db/migrations/versions/"

LINES_OF_FUNCTION_MAX = 60
LINES_OF_MODULE_MAX = 400

Finder = Callable[[ast.Module], Iterator[ast.AST]]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def sources(*rooms: str) -> list[Path]:
    found = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    assert len(found) >= len(rooms)
    return found


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def where(finder: Finder, *rooms: str) -> set[str]:
    """The modules in which something is found."""
    return {named(path) for path in sources(*rooms) if any(True for _ in finder(parsed(path)))}


def attributes(*names: str) -> Finder:
    """Uses of `name.attribute`, and imports of the attribute by itself."""
    wanted = {tuple(name.split(".")) for name in names}

    def find(tree: ast.Module) -> Iterator[ast.AST]:
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Name(id=owner), attr=attr) if (owner, attr) in wanted:
                    yield node
                case ast.ImportFrom(module=module, names=imported):
                    yield from (one for one in imported if (module, one.name) in wanted)

    return find


def calls(*names: str) -> Finder:
    """Calls of a function, or a method, of a name."""

    def find(tree: ast.Module) -> Iterator[ast.AST]:
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in names:
                    yield node

    return find


def texts(pattern: str) -> Finder:
    """Strings that are no docstrings and match."""
    wanted = re.compile(pattern, re.IGNORECASE)

    def find(tree: ast.Module) -> Iterator[ast.AST]:
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                yield from [node] if wanted.search(node.value) else []

    return find


def test_only_config_reads_the_environment() -> None:
    """Whoever needs a setting asks for it there: one list of what a deployment decides."""
    read = where(attributes("os.environ", "os.environb", "os.getenv", "os.putenv"), *ROOMS)

    assert read == {"config/settings.py"}


def test_only_the_session_commits() -> None:
    """A transaction ends where it began, never in the middle of a use case."""
    assert where(calls("commit"), *PRODUCT) == {"db/session.py"}


def test_no_float_comes_near_money() -> None:
    """Neither made nor written, where money is reckoned; the only seconds there are those of a report."""
    assert where(calls("float"), "billing", "db", "services", "payments") <= {"db/reports.py"}

    def literals(tree: ast.Module) -> Iterator[ast.AST]:
        return (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, float))

    assert where(literals, "billing") == set()


def test_no_statement_asks_postgres_for_the_time() -> None:
    """Time is an argument: the same envelope at another hour must be able to say so.

    But for the pace, which many machines share: their clocks differ, and the server's is one. For telling by how much
    a host's differs from it. For the migration that begins what is owed from now on: nobody hands it a moment. And for
    the SQL face, whose callers are where a producer is.
    """
    names = "current_timestamp", "current_date", "localtimestamp"
    functions = "now", "clock_timestamp", "statement_timestamp", "transaction_timestamp"
    asks = rf"\b({'|'.join(names)})\b|\b({'|'.join(functions)})\s*\("

    assert where(texts(asks), "db", "services") == {
        "db/collecting.py",
        "db/migrations/versions/0003_the_month.py",
        "db/migrations/versions/0010_sql_face.py",
        "db/schema/sql_face.py",
        "db/ticks.py",
    }


def test_only_the_clock_tells_the_time() -> None:
    """And a producer, which fixes when its usage occurred. A health check compares the age of a file."""
    told = where(attributes("datetime.now", "datetime.utcnow", "datetime.today", "date.today"), *PRODUCT)

    assert told == {"config/clock.py", "sdk/src/centavo/events.py", "sdk/src/centavo/envelopes.py"}
    assert where(attributes("time.time"), *PRODUCT) <= {"worker/health.py"}


def test_text_files_are_read_and_written_in_utf_8() -> None:
    """Not in the language of whoever started the process: a plan's name is the same on every machine."""
    assert where(_text_without_encoding, *ROOMS) == set()


def _text_without_encoding(tree: ast.Module) -> Iterator[ast.AST]:
    for node in calls("read_text", "write_text", "open", "fdopen")(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os" | "gzip" | "Segment"), attr="open")):
                continue  # descriptors, and files of bytes
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self") | ast.Attribute(), attr="open")):
                continue  # methods of ours
            case ast.Call(args=args, keywords=keywords):
                modes = [*args, *(one.value for one in keywords if one.arg == "mode")]
                if any(
                    isinstance(mode, ast.Constant) and re.fullmatch("[rwxa+]*b[rwxa+]*", str(mode.value))
                    for mode in modes
                ):
                    continue
                if all(one.arg != "encoding" for one in keywords):
                    yield node


def test_functions_fit_on_a_screen() -> None:
    long = {
        f"{named(path)}:{node.name}": lines
        for path in sources(*ROOMS)
        if not named(path).startswith(MIGRATIONS)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > LINES_OF_FUNCTION_MAX
    }

    assert long == {}


def test_modules_can_be_read_in_one_go() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in sources(*ROOMS)}
    long = {name for name, lines in lengths.items() if lines > LINES_OF_MODULE_MAX}

    assert {name for name in long if not name.startswith(MIGRATIONS)} <= LISTS


def test_no_tracked_file_names_a_package_registry() -> None:
    """Where packages come from is decided by whoever installs, not by this repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a checkout: nothing is tracked here")
    # In pieces, or this file would name them.
    hosts = ("pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "crates" + ".io")
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]

    assert "pyproject.toml" in names
    naming = {name for name in names if any(host.encode() in (ROOT / name).read_bytes() for host in hosts)}
    assert naming == set()


@pytest.mark.parametrize(
    ("finder", "text", "is_found"),
    [
        (attributes("os.environ"), "import os\nos.environ['A']", True),
        (attributes("os.environ"), "from os import environ", True),
        (attributes("os.environ"), "import os\nos.getpid()", False),
        (calls("commit"), "connection.commit()", True),
        (calls("float"), "x = float('1')", True),
        (calls("float"), "def f(x: float) -> None: ...", False),
        (texts(r"\bnow\(\)"), "x = 'SELECT now()'", True),
        (_text_without_encoding, "path.read_text()", True),
        (_text_without_encoding, "path.open('w')", True),
        (_text_without_encoding, "path.open('rb')", False),
        (_text_without_encoding, "path.write_text(a, encoding='utf-8')", False),
        (texts(r"\bnow\(\)"), "def f():\n    '''never now()'''", False),
    ],
)
def test_the_finders_find(finder: Finder, text: str, is_found: bool) -> None:
    """A rule whose check finds nothing is a wish."""
    assert any(True for _ in finder(ast.parse(text))) == is_found
