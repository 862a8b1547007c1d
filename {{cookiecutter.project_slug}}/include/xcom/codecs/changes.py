"""Keep track of what does not come back exactly while a value is written, by the types before and after."""

from __future__ import annotations

from .base import Change

__all__ = ["Changes", "as_attribute", "shown_key"]


class Changes:
    """The changes within one value; their paths grow as the writer returns from the depth of it."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Change] = {}

    def __len__(self) -> int:
        return len(self._found)

    def note(self, path: str, before: str, after: str, places: int = 1) -> None:
        """Add a change; of one kind, the path of the first is kept and the others are counted."""
        known = self._found.get((before, after))
        if known is not None:
            path, places = known.path, known.places + places
        self._found[before, after] = Change(path, before, after, places)

    def place(self, known: int, inside: str) -> int:
        """Put a place before the paths of all but the first ``known`` changes; return how many there are."""
        for kind, change in list(self._found.items())[known:]:
            self._found[kind] = change._replace(path=f"{inside}{change.path}")
        return len(self._found)

    def turn_into_attributes(self, known: int) -> None:
        """Write the first key in the paths of all but the first ``known`` changes as an attribute."""
        for kind, change in list(self._found.items())[known:]:
            self._found[kind] = change._replace(path=as_attribute(change.path))

    def copy(self) -> Changes:
        """Return an independent copy."""
        copied = Changes()
        copied._found = dict(self._found)
        return copied

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Changes) and other._found == self._found

    __hash__ = None  # type: ignore[assignment]

    def as_tuple(self) -> tuple[Change, ...]:
        """Return all changes."""
        return tuple(self._found.values())


def shown_key(key: object) -> str:
    """Return a key for a path."""
    text = repr(key)
    return text if len(text) <= 60 else f"{text[:59]}…"


def as_attribute(path: str) -> str:
    """Turn ``['lines'][3]`` into ``.lines[3]``."""
    head, _, rest = path[2:].partition("']")
    return f".{head}{rest}" if path.startswith("['") else path
