"""A sample of what `scripts/chaos` tries: real processes die, and Stripe has taken what was owed, once."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from chaos import matrix
from chaos.__main__ import app
from services.collect import CRASH_POINTS

pytestmark = pytest.mark.faults


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def test_killed_at_any_point_whatever_stripe_answers_a_payment_ends_right(run: CliRunner) -> None:
    result = run.invoke(app, ["collecting", "--sample", "20", "--seed", "20"])

    assert "0 failed, 0 differences in the audit" in result.output.replace("\n", " "), result.output
    assert result.exit_code == 0


def test_a_small_storm_and_a_database_put_back_take_nothing_twice(run: CliRunner) -> None:
    result = run.invoke(app, ["storm", "--payments", "60", "--pace", "40", "--seed", "7"])

    assert "0 differences in the audit at the end" in result.output.replace("\n", " "), result.output
    assert result.exit_code == 0, result.output


def test_the_sample_has_every_point_answer_and_way_of_webhooks() -> None:
    chosen = matrix.sample(20, 20)

    assert len(set(chosen)) == 20
    assert {one.point for one in chosen} == set(CRASH_POINTS)
    assert {one.answer for one in chosen} == set(matrix.ANSWERS)
    assert {one.webhooks for one in chosen} == set(matrix.WEBHOOKS)
    assert len(matrix.combinations()) == len(CRASH_POINTS) * len(matrix.ANSWERS) * len(matrix.WEBHOOKS)
