"""A journal in which many dead processes have left something: a day without a broker, with a job each minute."""

import os
import signal
from pathlib import Path

from centavo import UsageEvent
from centavo.disk import DiskJournal
from tests.sdk.support import Broker, event, eventually, run_program
from tests.sdk.test_sdk_journal import NOBODY, await_next_millisecond, children_of, files_in, left_in

DEAD = 150

#: What a process may have open, in which a producer is but a guest.
FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
"""


def left_by_many(directory: Path, number: int = DEAD) -> list[str]:
    """The keys of what so many processes left, one event each; the oldest first."""
    for one in range(number):
        journal = DiskJournal(directory)
        journal.append(event(f"k{one}").to_wire())
        journal.close()
        await_next_millisecond()
    return [f"k{one}" for one in range(number)]


def keys_left_in(directory: Path) -> list[str]:
    return [UsageEvent.model_validate_json(raw).key for raw in left_in(directory)]


def test_a_process_takes_all_of_it_over_with_few_files_open(broker: Broker, tmp_path: Path) -> None:
    """The application goes on as well, and everything leaves in the order in which it came."""
    keys = left_by_many(tmp_path / "journal")

    ran = run_program(
        FEW_FILES
        + """
producer = Producer(sys.argv[1], journal=sys.argv[2])
open(os.devnull).close()
producer.emit(event("new"))
print(producer.counters.adopted, producer.flush(20), flush=True)
""",
        broker.url,
        str(tmp_path / "journal"),
    )

    assert (ran.returncode, ran.stdout.split(), ran.stderr) == (0, [f"{DEAD}", "0"], "")
    assert broker.keys() == [*keys, "new"]


def test_who_dies_at_it_leaves_one_lane_to_the_next(tmp_path: Path) -> None:
    keys = left_by_many(tmp_path, 20)

    ran = run_program(
        """
import signal
producer = Producer("redis://127.0.0.1:1/0", journal=sys.argv[1])
producer.emit(event("new"))
os.kill(os.getpid(), signal.SIGKILL)
""",
        str(tmp_path),
    )

    assert ran.returncode == -signal.SIGKILL
    assert files_in(tmp_path).count(".lock") == 1
    assert keys_left_in(tmp_path) == [*keys, "new"]


def test_while_a_lane_is_taken_over_nobody_else_takes_it(tmp_path: Path) -> None:
    """Its files have left it, and its lock with them: they are the other one's now, as long as that lives."""
    keys = left_by_many(tmp_path, 5)
    ran = run_program(
        """
import signal
from centavo.disk import DiskJournal
ready, told = os.pipe()
child = os.fork()
if not child:
    os.closerange(1, 3)
    journal = DiskJournal(sys.argv[1])
    os.write(told, b"%d" % len(list(journal.take_over())))
    signal.pause()
assert os.read(ready, 9) == b"5"
assert list(DiskJournal(sys.argv[1]).take_over()) == []
print(child, flush=True)
""",
        str(tmp_path),
    )
    (child,) = children_of(ran)
    os.kill(child, signal.SIGKILL)

    assert (ran.returncode, ran.stderr) == (0, "")
    eventually(lambda: keys_left_in(tmp_path) == keys)  # the kernel takes a moment to give back its lock


def test_where_nothing_can_be_renamed_it_is_sent_from_where_it_lies(broker: Broker, server_folder: Path) -> None:
    directory = server_folder / "read-only journal"
    keys = left_by_many(directory, 3)
    for path in directory.iterdir():
        os.chown(path, NOBODY, NOBODY)
    directory.chmod(0o555)

    ran = run_program(
        f"""
Producer("redis://127.0.0.1:1/0").close(0)  # loads what is needed
if os.getuid() == 0:
    os.setgid({NOBODY})
    os.setuid({NOBODY})
producer = Producer(sys.argv[1], journal=sys.argv[2])
print(producer.counters.adopted, producer.flush(20), flush=True)
""",
        broker.url,
        str(directory),
    )

    assert (ran.returncode, ran.stdout.split()) == (0, ["3", "0"])
    assert broker.keys() == keys
