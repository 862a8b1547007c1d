"""What a check of the doctor found: one line."""

from __future__ import annotations

from dataclasses import asdict, dataclass

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        level: ``ok``, ``warning``, ``problem`` or ``skipped``.
        check: A word for what was looked at.
        message: What was found.
        fix: A command or a line to paste; empty where nothing is to be done.
    """

    level: str
    check: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        """Return the line."""
        text = f"{self.level.ljust(7)}  {self.check}: {' '.join(self.message.split())}"
        return f"{text} | fix: {self.fix}" if self.fix else text

    def as_json(self) -> dict[str, str]:
        """Return the fields."""
        return asdict(self)
