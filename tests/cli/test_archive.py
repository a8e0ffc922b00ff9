"""`centavo archive`."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.elsewhen import centavo_there, host_ahead
from tests.services.past_usage import used_long_ago


@pytest.fixture
def used(billing_database: str) -> int:
    """How many events there are of long ago."""
    return len(used_long_ago(datetime.now(UTC)))


def test_it_says_what_it_would_do_does_it_and_has_nothing_left_to_do(
    used: int, forked: Command, tmp_path: Path
) -> None:
    """A dry run, then a run, then another; as tables and as JSON."""
    asked = ("archive", "--older-than", "6", "--to", str(tmp_path / "archive"))

    would = forked(*asked, "--dry-run")
    would_json = forked(*asked, "--dry-run", "--json")
    assert not (tmp_path / "archive").exists()
    done = forked(*asked)
    again = forked(*asked)
    again_json = forked(*asked, "--json")
    audit = forked("audit")

    assert [one.status for one in (would, would_json, done, again, again_json, audit)] == [0] * 6
    assert str(used) in would.out
    assert "nothing is written yet" in would.out
    assert sum(month["events"] for month in would_json.json["ready"]) == used
    assert "acme" in done.out
    assert str(tmp_path) in done.out.replace("\n", "")
    assert again.out == "nothing is old enough\n"
    assert again_json.json == {"archives": []}
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "archive").glob("*/*/*/manifest.json")]
    assert sum(manifest["events"] for manifest in manifests) == used


def test_nothing_is_archived_by_default(billing_database: str, forked: Command, tmp_path: Path) -> None:
    """Neither how old nor where to is guessed; and what is young is refused."""
    no_age = forked("archive", "--to", str(tmp_path))
    no_folder = forked("archive", "--older-than", "12")
    too_young = forked("archive", "--older-than", "5", "--to", str(tmp_path))

    assert [one.status for one in (no_age, no_folder, too_young)] == [1, 1, 1]
    assert "--older-than 12" in no_age.err
    assert "CENTAVO_ARCHIVE_FOLDER" in no_folder.err
    assert "the last 6 months stay" in too_young.err


def test_a_host_whose_clock_is_wrong_archives_nothing(used: int, tmp_path: Path) -> None:
    """To it, what was used yesterday is old."""
    assert used
    there = host_ahead(tmp_path / "site", timedelta(days=365))

    refused = centavo_there(there, "archive", "--older-than", "6", "--to", str(tmp_path / "archive"))

    assert refused.returncode == 1
    assert "set the clock that is wrong" in refused.stderr
    assert not (tmp_path / "archive").exists()


def test_the_settings_say_both(used: int, forked: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For whoever runs it by a timer."""
    monkeypatch.setenv("CENTAVO_RETENTION_MONTHS", "6")
    monkeypatch.setenv("CENTAVO_ARCHIVE_FOLDER", str(tmp_path))

    done = forked("archive", "--json")

    assert sum(one["events"] for one in done.json["archives"]) == used
