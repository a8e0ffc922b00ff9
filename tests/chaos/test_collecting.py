"""A sample of what `scripts/chaos` tries: real processes die, and Stripe has taken what was owed, once."""

import subprocess
import sys

import pytest

from chaos import matrix
from sandbox.stack import ROOT
from services.collecting.collect import CRASH_POINTS

pytestmark = pytest.mark.faults

SECONDS_MAX = 170


def told(*arguments: str) -> str:
    """What a run of chaos says, on one line; it has to end well."""
    command = [sys.executable, "-m", "chaos", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return " ".join(ended.stdout.split())


def test_killed_at_any_point_whatever_stripe_answers_a_payment_ends_right() -> None:
    assert "0 failed, 0 differences in the audit" in told("collecting", "--sample", "20", "--seed", "20")


def test_a_small_storm_and_a_database_put_back_take_nothing_twice() -> None:
    said = told("storm", "--payments", "60", "--pace", "40", "--kills", "2", "--seed", "7")

    assert "0 differences in the audit at the end" in said
    assert "2 kills: 6 retry_scheduled, 54 succeeded" in said


def test_the_sample_has_every_point_answer_and_way_of_webhooks() -> None:
    chosen = matrix.sample(20, 20)

    assert len(set(chosen)) == 20
    assert {one.point for one in chosen} == set(CRASH_POINTS)
    assert {one.answer for one in chosen} == set(matrix.ANSWERS)
    assert {one.webhooks for one in chosen} == set(matrix.WEBHOOKS)
    assert len(matrix.combinations()) == len(CRASH_POINTS) * len(matrix.ANSWERS) * len(matrix.WEBHOOKS)
