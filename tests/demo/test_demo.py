"""The demo bills a trace on real servers, shows what came of it, and its exit status says whether it holds."""

import json
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sandbox.process_tree import ProcessIdentity
from sandbox.processes import await_condition
from sandbox.stack import ROOT
from tests.demo.conftest import DEMO_SECONDS_MAX, demo_environment, run_demo, start_demo, write_trace

#: Of customers 0, 1 and 2 in turn: 9 million tokens each.
NINE_MILLION_EACH = [(2_999_000, 1_000)] * 9
#: 18.4 million tokens.
EIGHT_LARGE = [(2_300_000, 100)] * 8


@pytest.fixture
def result(short_dir: Path) -> Path:
    return short_dir / "result.json"


def billed(home: Path, result: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """A demo that holds: what it said, and its result."""
    status, said = run_demo(home, *arguments, "--json", str(result))
    assert status == 0, said
    document: dict[str, Any] = json.loads(result.read_text())
    return said, document


def test_a_trace_of_three_customers_ends_as_it_must(short_dir: Path, result: Path) -> None:
    """One pays fee and tier, one is debited, the card of one declines; in the JSON, and in a table of 80 columns."""
    trace = write_trace(short_dir / "trace.csv", *NINE_MILLION_EACH)

    said, document = billed(short_dir / "h", result, "--trace", str(trace), "--customers", "3")

    used = 3 * (2_999_000 * Decimal("0.00003") + 1_000 * Decimal("0.00006"))
    common = {"events": 3, "tokens": 9_000_000}
    pays_tiers = {"plan": "tiers-8m", **common, "cost": "0", "tier_payments": 1, "currency": "BRL"}
    unchanged = {"balance_before": "0", "balance_after": "0"}
    assert document.pop("customers") == {
        "customer-0": {**pays_tiers, **unchanged, **_by_state("succeeded")},
        "customer-1": {
            "plan": "prepaid",
            **common,
            "cost": str(used.normalize()),
            "fee_payments_by_state": {},
            "tier_payments": 0,
            "tier_payments_by_state": {},
            "balance_before": "1000",
            "balance_after": str((1000 - used).normalize()),
            "currency": "USD",
        },
        "customer-2": {**pays_tiers, **unchanged, **_by_state("retry_scheduled")},
    }
    assert document.pop("payments") == {
        "subscription": {
            "succeeded": {"count": 1, "amount_minor": 40_000},
            "retry_scheduled": {"count": 1, "amount_minor": 40_000},
        },
        "tier": {
            "succeeded": {"count": 1, "amount_minor": 10_000},
            "retry_scheduled": {"count": 1, "amount_minor": 10_000},
        },
    }
    assert document.pop("events_per_second") > 0
    assert 0 < document.pop("seconds") < DEMO_SECONDS_MAX
    assert 9 <= document.pop("sent") <= 18
    assert document == {
        "emitted": 9,
        "charged": 9,
        "parked": 0,
        "differences": 0,
        "difference_list": [],
        "tokens": 27_000_000,
    }
    lines = said.splitlines()
    assert lines[-1] == "9 emitted, 9 charged, 0 parked, 0 differences"
    assert max(map(len, lines)) <= 80
    assert "…" not in said
    assert "\x1b" not in said
    table = " ".join(said.split())
    for row in (
        "customer-0 3 9,000,000 1 fee succeeded BRL 0 tiers-8m BRL 400.00 = 0 1 tier succeeded BRL 100.00",
        "customer-1 3 9,000,000 – – USD 1000.00",
        "fee retry scheduled",
        "1 tier retry scheduled",
    ):
        assert row in table
    assert f"- {used:.2f}" in said
    assert f"= {1000 - used:.2f}" in said


def _by_state(state: str) -> dict[str, dict[str, int]]:
    """One fee and one tier."""
    return {"fee_payments_by_state": {state: 1}, "tier_payments_by_state": {state: 1}}


def test_a_trace_of_one_customer_crosses_two_tiers(short_dir: Path, result: Path) -> None:
    """18.4 million tokens are two tiers beyond the 8 million covered; all is paid, and no process is left."""
    trace = write_trace(short_dir / "trace.csv", *EIGHT_LARGE, (1, 1), (1, 1))

    _, document = billed(short_dir / "h", result, "--trace", str(trace), "--customers", "1", "--events", "8")

    assert document["payments"] == {
        "subscription": {"succeeded": {"count": 1, "amount_minor": 40_000}},
        "tier": {"succeeded": {"count": 2, "amount_minor": 20_000}},
    }
    assert (document["emitted"], document["tokens"]) == (8, 18_400_800)
    assert not (short_dir / "h" / "demo" / "state.json").exists()


@pytest.mark.faults
def test_what_is_kept_up_can_be_looked_at_as_printed(short_dir: Path) -> None:
    """Every command that it prints works as it stands, from the folder it was started in; the last ends it all."""
    home = short_dir / "h"
    status, said = run_demo(home, "--events", "200", "--customers", "2", "--keep")
    assert status == 0, said
    *looks, down = [line.strip() for line in said.split("everything is left up")[1].splitlines()[1:]]
    with start_demo(home, "--events", "1") as second:
        refused, _ = second.communicate()

    answers = [_run_in_shell(look, home) for look in looks]

    assert second.returncode == 1
    assert "a stack that was left running is still up" in refused
    assert len(answers) == 4
    for words, answer in zip(("events charged", "0 differences", "psql", '"totals"'), answers, strict=True):
        assert words in answer, answer
    state = json.loads((home / "demo" / "state.json").read_text())
    assert len(state["processes"]) == 6
    assert _run_in_shell(down, home).count("ended ") == 6
    assert not any(ProcessIdentity(**process).alive for process in state["processes"].values())


def _run_in_shell(line: str, home: Path) -> str:
    """A line as pasted; psql is asked for its version, or it would wait for more."""
    if "psql" in line:
        line += " --command '\\conninfo' && echo psql"
    done = subprocess.run(
        line, shell=True, cwd=ROOT, env=demo_environment(home), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout


@pytest.mark.faults
def test_money_that_went_astray_is_found(short_dir: Path, result: Path) -> None:
    """A wallet that somebody else changed: exit status 1, the difference in words and in the JSON."""
    with start_demo(short_dir / "h", "--customers", "3", "--events", "2000", "--json", str(result)) as process:
        _take_one_dollar(short_dir / "h" / "demo" / "postgres", process)
        said, _ = process.communicate(timeout=DEMO_SECONDS_MAX)

    assert process.returncode == 1, said
    assert "customer-1: wallet: expected " in said
    assert "wallet balance is the sum of its entries" in said
    document = json.loads(result.read_text())
    assert document["differences"] >= 2
    assert (document["emitted"], document["charged"], document["parked"]) == (2000, 2000, 0)


def _take_one_dollar(data: Path, process: subprocess.Popen[str]) -> None:
    """From customer 1, by a second connection, as soon as the first events are charged."""
    taken = (
        "UPDATE wallets SET balance = balance - 1, used_total = used_total + 1 "
        "WHERE customer_id = 'customer-1' AND EXISTS (SELECT FROM usage_events)"
    )

    def is_taken() -> bool:
        assert process.poll() is None, process.communicate()
        try:
            url = f"postgresql://postgres@/postgres?host={data.resolve()}&port=5432"
            with psycopg.connect(url, connect_timeout=2) as connection:
                return connection.execute(taken).rowcount == 1
        except psycopg.Error:
            return False  # not up yet, or no tables yet

    await_condition(is_taken, 60, "the wallet of customer 1")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--trace", "nowhere.csv"], 2, "'nowhere.csv' does not exist"),
        (["--trace", "README.md"], 1, "README.md, line 1: the header must be"),
        (["--json", "nowhere/result.json"], 1, "there is no folder"),
        (["--customers", "0"], 2, "should be greater than or equal to 1"),
        (["--events", "0"], 2, "should be greater than or equal to 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_billed_is_said_before_anything_is_started(
    arguments: list[str], status: int, said: str, short_dir: Path
) -> None:
    """In a sentence; and no home is made for it."""
    found = run_demo(short_dir / "h", *arguments)

    assert found[0] == status
    assert said in " ".join(found[1].replace("│", " ").split())
    assert "Traceback" not in found[1]
    assert not (short_dir / "h").exists()
