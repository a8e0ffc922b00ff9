"""The past of a run, written before it begins, and archived while it goes on; and a look into what was archived."""

import gzip
import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from itertools import groupby
from pathlib import Path

from centavo import UsageEvent
from centavo.envelopes import pack
from chaos.facts import ArchivedFact
from chaos.stage import Stage
from chaos.stream import past
from chaos.world import MONTHS_MIN, World
from sandbox.processes import ManagedProcess
from sandbox.stack import ROOT
from services.cycle import closing, months, statements
from services.metering.usage import record_usage

#: Where it dies, each once. The last time, nothing kills it.
POINTS = (
    "archive.begun",
    "archive.page_written",
    "archive.file_written",
    "archive.written",
    "archive.entries_removed",
    "archive.page_removed",
    "archive.emptied",
)
AGAIN_SECONDS = 0.5
LOOK_SECONDS = 0.05


def live_the_past(made: Stage, world: World) -> None:
    """Record what was used long ago, as it was recorded then; its months are closed and stated by now."""
    log = made.home / "past.emitted"
    lines = []
    for month, used in groupby(past(world), key=lambda fields: fields["occurred_at"].replace(day=1, hour=0, minute=0)):
        wires = [UsageEvent(**fields).to_wire() for fields in used]
        recorded_at = month + timedelta(days=27)
        lines += [b"E %.3f %b\n" % (recorded_at.timestamp(), wire) for wire in wires]
        record_usage(pack(wires).json, recorded_at)
    log.write_bytes(b"".join(lines) + b"F\n")
    made.journaled_logs.append(log)
    while months.turn_due(world.began_at).customers:
        pass
    for work in (closing.close_due, statements.issue_due):
        while work(world.began_at):
            pass


@dataclass(slots=True)
class Archiver:
    """`centavo archive`, begun anew whenever it dies, until it has ended by itself."""

    made: Stage
    dice: random.Random
    deaths_wanted: int = len(POINTS)
    deaths: int = 0
    is_done: bool = False
    problem: str = ""
    _is_given_up: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def folder(self) -> Path:
        return self.made.home / "archive"

    def start(self) -> None:
        """Begin, beside everything else."""
        self._thread = threading.Thread(target=self._run, name="archiver", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give up what is still to be done."""
        self._is_given_up.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        armed = self.made.home / "archive.faults"
        armed.mkdir()
        for number, point in enumerate(self.dice.sample(POINTS, self.deaths_wanted)):
            (armed / f"{point}.{number}").touch()
        while not self._is_given_up.wait(AGAIN_SECONDS):
            process = self._begin(armed)
            while process.alive and not self._is_given_up.is_set():
                time.sleep(LOOK_SECONDS)
            if (code := process.kill()) == 0:
                self.is_done = True
                return
            self.deaths += 1
            self.problem = f"the archiver ended with {code}: {process.log_tail(5)}"

    def _begin(self, armed: Path) -> ManagedProcess:
        command = [sys.executable, "-m", "cli", "archive", "--older-than", str(MONTHS_MIN), "--to", str(self.folder)]
        environment = self.made.environment | {"CENTAVO_FAULT_DIR": str(armed)}
        with self.made.starting:
            return ManagedProcess.start("archiver", command, self.made.home / "archiver.log", env=environment, cwd=ROOT)


def archived(folder: Path) -> Iterator[ArchivedFact]:
    """Every event in the files below this folder, with what its entry moved."""
    for file in folder.rglob("*.jsonl.gz"):
        with gzip.open(file) as lines:
            for line in lines:
                said = json.loads(line, parse_float=Decimal)
                event, entry = said["event"], said["entry"]
                moved = Decimal(str(entry["amount"])) if entry else None
                yield ArchivedFact(event["tenant_id"], event["key"], Decimal(str(event["cost"])), moved)
