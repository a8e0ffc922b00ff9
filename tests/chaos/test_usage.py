"""A short run of the proof on each broker: every kind of fault, and the oracle finds nothing."""

import json
import subprocess
import sys

import pytest

from sandbox.rabbitmq import rabbitmq_missing
from sandbox.stack import ROOT

#: It takes half a minute; what a lost message costs in back-off, and a busy machine, may come on top.
SECONDS_MAX = 280
pytestmark = [pytest.mark.faults, pytest.mark.timeout(SECONDS_MAX + 20)]
KINDS = {
    "child killed",
    "worker killed",
    "collector killed",
    "producer killed",
    "child stopped",
    "worker stopped",
    "worker warm-stopped",
    "broker killed",
    "broker restarted",
    "broker wiped",
    "postgres restarted",
    "disk lags",
    "clock stepped",
    "stripe fails",
    "webhooks late",
}


@pytest.mark.parametrize("broker", ["valkey", "rabbitmq"])
def test_whatever_dies_usage_is_charged_once_and_paid_once(broker: str) -> None:
    if broker == "rabbitmq" and (why := rabbitmq_missing()):
        pytest.skip(why)
    command = [sys.executable, "-m", "chaos", "--short", "--json", "--seed", "11", "--minutes", "0.15"]

    ended = subprocess.run(
        [*command, "--broker", broker], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )

    assert ended.returncode == 0, ended.stdout[-10_000:] + ended.stderr[-5000:]
    (report,) = json.loads(ended.stdout)
    assert (report["lost"], report["doubled"], report["captured_twice"]) == (0, 0, 0)
    assert (report["differences"], report["audit_differences"], report["problems"]) == ({}, 0, [])
    assert set(report["faults"]) == KINDS
    assert min(report["recorded"], report["duplicates"], report["conflicts"], report["wiped"]) > 0
    ends = ("charged", "pending", "voided")
    assert min(int(report["totals"][f"events {status}"]["found"]) for status in ends) > 0
    assert min(report["captures"][mark] for mark in ("whole", "beyond", "expired", "unknown")) > 0
    assert min(report["held"], report["thresholds"], report["over_quota"], report["archiver_deaths"]) > 0
    assert report["archived"] == int(report["totals"]["events archived"]["expected"]) > 0
    assert int(report["totals"]["captured by Stripe, minor"]["found"]) > 0
