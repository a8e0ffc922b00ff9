"""What the proof says of how long faults took: the servers' own part apart from what came after it."""

from datetime import UTC, datetime
from decimal import Decimal

from chaos.emitted import Content, Emitted, Key, Variant
from chaos.faults import Fault
from chaos.recovery import Recovery, Sample, measured, recoveries

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ITEM = ("llm_prompt", "openai", "gpt-4", "token", Decimal(1))


def emitted(**seconds: float) -> Emitted:
    """Events by key, and when each was emitted."""
    content = Content("alpha", "ana", NOW, (ITEM,))
    return Emitted({("alpha", key): [Variant(content, b"", first_at=at)] for key, at in seconds.items()})


def committed(**seconds: float) -> dict[Key, float]:
    return {("alpha", key): at for key, at in seconds.items()}


def test_a_server_that_starts_takes_its_time_and_what_follows_is_told_apart() -> None:
    """From the kill at 10 until it answered at 17; work went on at 17.5, and all that had waited was done at 19."""
    fault = Fault("broker killed", began_at=10, over_at=17)

    samples = measured([fault], emitted(before=9.9, waited=12, later=17.2), committed(before=17.5, waited=19, later=25))

    assert samples == [Sample("broker killed", lasted=7, first=0.5, back=2)]


def test_a_fault_beside_another_is_counted_and_not_measured() -> None:
    faults = [Fault("broker killed", 10, 17), Fault("child killed", 16, 16)]

    samples = measured(faults, emitted(waited=12), committed(waited=19))

    assert samples == []
    (broker, child) = recoveries([one.kind for one in faults], samples)
    assert (broker.times, broker.alone, child.times, child.alone) == (1, 0, 1, 0)


def test_what_another_fault_held_up_is_not_this_ones() -> None:
    """Work went on before the child was killed; when all was back, two faults had had their part in it."""
    faults = [Fault("broker killed", 10, 17), Fault("child killed", 18.5, 18.5)]

    samples = measured(faults, emitted(before=9.9, waited=12), committed(before=17.5, waited=19))

    assert samples == [
        Sample("broker killed", lasted=7, first=0.5, back=None),
        Sample("child killed", lasted=0, first=0.5, back=None),
    ]
    (_, child) = recoveries([one.kind for one in faults], samples)
    assert (child.alone, child.first_max, child.back_max) == (1, 0.5, None)


def test_of_each_kind_the_middle_and_the_worst_are_told() -> None:
    samples = [Sample("broker killed", 5, 0.1, 1), Sample("broker killed", 9, 0.2, 4), Sample("broker killed", 6, 3, 2)]

    assert recoveries(["broker killed"] * 4, samples) == [Recovery("broker killed", 4, 3, 6, 9, 0.2, 3, 2, 4)]
