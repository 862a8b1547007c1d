"""Keep track of the place in a value that is being written, and of what does not come back exactly."""

from __future__ import annotations

from typing import TypeAlias

from .base import Change

__all__ = ["ATTRIBUTES", "MEMBER", "Changes", "Saved"]

MEMBER = object()
"""Step to a member of a set, which has neither key nor position."""
ATTRIBUTES = object()
"""Step to an instance's attributes: the key that follows is shown as ``.name``."""

Saved: TypeAlias = "tuple[dict[tuple[str, str], Change], int, list[object]]"


class Changes:
    """The changes within one value.

    Attributes:
        path: Keys and positions that lead to the part that is being written. The writer pushes and pops;
            after an error they lead to the part that raised it.
        count: Number of parts that do not come back exactly.
    """

    def __init__(self) -> None:
        self.path: list[object] = []
        self.count = 0
        self._found: dict[tuple[str, str], Change] = {}

    def place(self) -> str:
        """Return the path in Python notation: ``['lines'][3].price``."""
        text, before = "", None
        for step in self.path:
            if step is MEMBER:
                text += "{...}"
            elif before is ATTRIBUTES:
                text += f".{step}"
            elif step is not ATTRIBUTES:
                shown = repr(step)
                text += f"[{shown}]" if len(shown) <= 60 else f"[{shown[:59]}…]"
            before = step
        return text

    def note(self, path: str, before: str, after: str, places: int = 1) -> None:
        """Add a change at ``path`` below the current place.

        Of changes between the same two types, the path of the first is kept and the others are counted.
        """
        self.count += places
        known = self._found.get((before, after))
        if known is None:
            change = Change(f"{self.place()}{path}", before, after, places)
        else:
            change = known._replace(places=known.places + places)
        self._found[before, after] = change

    def save(self) -> Saved:
        """Return what ``restore`` needs to come back to this state."""
        return dict(self._found), self.count, list(self.path)

    def restore(self, saved: Saved) -> None:
        """Forget what was noted since a state was saved, and return to its place."""
        self._found, self.count = dict(saved[0]), saved[1]
        self.path[:] = saved[2]

    def as_tuple(self) -> tuple[Change, ...]:
        """Return all changes."""
        return tuple(self._found.values())
