"""Runs commands of the command line, each in a process of its own, without importing everything each time.

`python -m tests.cli.forking` imports once, and forks for each line on standard input: a command as JSON. What
became of it goes to standard output, as JSON. The fork is as fresh as a process that has just been started:
nothing was read from the environment and nothing was connected to before it.
"""

import json
import os
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from cli.main import PLACES
from cli.main import main as command_line


def run(arguments: list[str], environment: dict[str, str], typed: str) -> dict[str, Any]:
    """Run one command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("in", "out", "err")]
        streams[0].write_bytes(bytes.fromhex(typed))
        pid = os.fork()
        if pid == 0:
            os._exit(_command(arguments, environment, streams))
        _, status = os.waitpid(pid, 0)
        out, err = (stream.read_text() for stream in streams[1:])
    return {"status": os.waitstatus_to_exitcode(status), "out": out, "err": err}


def _command(arguments: list[str], environment: dict[str, str], streams: list[Path]) -> int:
    """In the fork: be that command."""
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        os.dup2(os.open(stream, os.O_RDWR | os.O_CREAT), number)
    sys.argv = ["centavo", *arguments]
    code: Any = 1
    try:
        command_line()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code)


def main() -> None:
    for place in PLACES.values():
        import_module(place.partition(":")[0])
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(**json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
