"""What a sweep found, counted for each Dag run, and why it stopped."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .output import CommandError

__all__ = ["Run", "StoppedError"]


@dataclass
class Run:
    """What a sweep found in one Dag run, or in what belongs to none. All numbers but one count objects.

    Attributes:
        orphans: No row refers to them. ``orphan_bytes`` is their size.
        deleted: Orphans that were deleted.
        kept: A row refers to them.
        young: Younger than the age asked for.
        undecided: They stay because they are not payloads, or belong to a Dag that Airflow does not know.
        failed: They stay because Airflow or the store did not answer.
        reason: The first cause of the last two.
    """

    dag_id: str
    run_id: str
    objects: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    deleted: int = 0
    kept: int = 0
    young: int = 0
    undecided: int = 0
    failed: int = 0
    reason: str = ""

    def add(self, other: Run) -> None:
        """Add the counts of another one."""
        for name, value in asdict(other).items():
            if type(value) is int:
                setattr(self, name, getattr(self, name) + value)
        self.reason = self.reason or other.reason

    def leave(self, count: int, reason: str, *, is_failure: bool = False) -> None:
        """Count objects that stay because nothing is known about them."""
        if is_failure:
            self.failed += count
        else:
            self.undecided += count
        self.reason = self.reason or reason


class StoppedError(CommandError):
    """Airflow or the store does not answer any more; ``Sweep.position`` is where to resume."""
