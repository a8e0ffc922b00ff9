"""How long RabbitMQ's queues are at this moment, asked of the queues themselves.

AMQP tells only what waits, not what was handed out and is not acknowledged; the management plugin and
`rabbitmqctl` tell what was so up to five seconds ago, and the latter takes a second to say it. Here one small Erlang
program stays connected to the node, and answers in a millisecond.
"""

import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

#: Reads the names of queues, and says for each: ready, handed out, all that is in it.
_PROGRAM = """
Node = '{node}',
Length = fun(Name) ->
  {{ok, Queue}} = rpc:call(Node, rabbit_amqqueue, lookup, [{{resource, <<"/">>, queue, list_to_binary(Name)}}]),
  Server = rpc:call(Node, amqqueue, get_pid, [Queue]),
  case rpc:call(Node, amqqueue, get_type, [Queue]) of
    rabbit_classic_queue ->
      Asked = [messages_ready, messages_unacknowledged, messages],
      Said = rpc:call(Node, rabbit_amqqueue, info, [Queue, Asked]),
      [proplists:get_value(One, Said) || One <- Asked];
    _ ->
      {{ok, {{_, #{{num_ready_messages := Ready, num_checked_out := Out, num_messages := All}}}}, _}} =
        rpc:call(Node, ra, local_query, [Server, fun rabbit_fifo:overview/1]),
      [Ready, Out, All]
  end
end,
Loop = fun(Again) ->
  case io:get_line("") of
    eof -> halt();
    Line ->
      try io:format("~w ~w ~w~n", Length(string:trim(Line)))
      catch _:_ -> io:format("unknown~n") end,
      Again(Again)
  end
end,
Loop(Loop).
"""


class Lengths(NamedTuple):
    """Messages of one queue; `all` has those, too, that wait to be dead-lettered."""

    ready: int
    handed_out: int
    all: int


class LengthsOf:
    """The queues of one node. Ends with `close`, or with us: it reads from a pipe of ours."""

    def __init__(self, node: str, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["erl", "-noshell", "-hidden", "-start_epmd", "false", "-sname", f"lengths-{node}", "-eval",
             _PROGRAM.format(node=node)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment),
        )  # fmt: skip

    def __call__(self, queue: str) -> Lengths | None:
        """None while the node is away, or has no such queue."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{queue}\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().split()
        return Lengths(*map(int, said)) if len(said) == len(Lengths._fields) else None

    def close(self) -> None:
        """End the program."""
        with suppress(OSError):
            self._process.communicate(timeout=5)
