"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        level: ``ok``, ``warning``, ``problem``, or ``skipped``.
        check: What was checked, in a word or two.
        message: What was found. Without a fix, it says what a person has to do.
        fix: A command to paste; empty where there is nothing to do, or only a person can.
    """

    level: str
    check: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        """Return the line."""
        text = f"{self.level:7}  {self.check}: {' '.join(self.message.split())}"
        return f"{text} | fix: {self.fix}" if self.fix else text
