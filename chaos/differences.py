"""What is not as it had to be. Imports nothing of the project."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not what it had to be."""

    kind: str
    """lost, doubled, cents, status, parked, tokens, payment, captured, hold, quota, archive, stranger"""
    subject: str
    expected: object
    actual: object

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: expected {self.expected}, found {self.actual}"
