"""Started and SIGKILLed by test_rabbitmq_server.py: boots a RabbitMQ, prints its processes, and waits.

Arguments: a folder for the data.
"""

import json
import os
import sys
import time
from pathlib import Path

from sandbox.process_tree import ProcessIdentity, descendants
from sandbox.rabbitmq import RabbitMQServer


def main(folder: Path) -> None:
    server = RabbitMQServer(folder / "rabbitmq")
    server.start()
    server.lengths("usage")
    processes = [ProcessIdentity.of(below.pid) for below in descendants(os.getpid())]
    names = [below.name() for below in descendants(os.getpid())]
    print(json.dumps({"tree": [(one.pid, one.began_at) for one in processes], "names": names}), flush=True)  # noqa: T201
    time.sleep(120)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
