"""Read requirements and constraints files, as far as the doctor needs: names, versions, hashes.

Standard library only: the doctor runs before anything is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .text_files import read_text

__all__ = ["Requirement", "canonical", "read_requirements", "versions_overlap"]

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;@)]*)\)?\s*(@[^;]*)?(;.*)?")
_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=|(?=[^\s=-]))(\S+)")
_CLAUSE = re.compile(r"(===|==|~=|!=|<=|>=|<|>)\s*v?([^\s,]+)")


class Requirement(NamedTuple):
    """One line.

    Attributes:
        name: In lower case, with hyphens; empty for an option.
        specifier: ``">=2,<3"``; empty if any version will do, or an environment marker may rule the line out.
        place: ``"requirements.txt line 3"``.
        is_constraint: Whether it only limits the version of what others ask for.
        has_hash: Whether the line has ``--hash``, or asks for hashes.
    """

    name: str
    specifier: str
    place: str
    is_constraint: bool
    has_hash: bool


def read_requirements(
    path: Path, *, is_constraint: bool = False, _above: frozenset[Path] = frozenset()
) -> Iterator[Requirement]:
    """Yield the lines of a file and of the local files that it includes.

    A file that is missing, or cannot be read as text, has none; that of another host has its URL as name.
    """
    path = path.resolve()
    if not path.is_file() or path in _above:
        return
    number = 0
    for count, line in _logical_lines(read_text(path).text):
        number += count
        place = f"{path.name} line {number}"
        has_hash = "--hash" in line or line.startswith("--require-hashes")
        if found := _INCLUDE.match(line):
            limits = is_constraint or line.startswith(("-c", "--c"))
            if "://" in found[1]:
                yield Requirement(found[1], "", place, limits, has_hash)
            else:
                yield from read_requirements(
                    path.parent / found[1], is_constraint=limits, _above=_above | {path}
                )
        elif named := _LINE.match(line.partition("--hash")[0].strip()):
            specifier = "" if named[3] or named[4] else named[2].strip()
            yield Requirement(canonical(named[1]), specifier, place, is_constraint, has_hash)
        elif has_hash:
            yield Requirement("", "", place, is_constraint, has_hash)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines without comments, joined where one ends in a backslash, with the number of lines each has."""
    joined, count = "", 0
    for line in text.splitlines():
        count += 1
        line = re.sub(r"(^|\s)#.*", "", line)
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        yield count, (joined + line).strip()
        joined, count = "", 0
    if joined:
        yield count, joined.strip()


def canonical(name: str) -> str:
    """Return the name of a package as an index has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def versions_overlap(specifier: str, wanted: str) -> bool:
    """Tell whether any version satisfies two specifiers; ``!=`` is passed over.

    >>> versions_overlap("<2", ">=2.2")
    False
    >>> versions_overlap("~=2.2", ">=2.2.3")
    True
    """
    low: tuple[int, ...] = (0,)
    high: tuple[int, ...] = (10**9,)
    has_low, has_high = True, True
    for operator, text in [*_CLAUSE.findall(specifier), *_CLAUSE.findall(wanted)]:
        found = re.match(r"(?:\d+!)?(\d+(?:\.\d+)*)", text)
        if operator == "!=" or not found:
            continue
        version = tuple(map(int, found[1].split(".")))
        is_prefix = text.endswith(".*")
        if operator in ("==", "===", "~=", ">=", ">") and _key(version) >= _key(low):
            has_low = operator != ">" and (has_low or _key(version) > _key(low))
            low = version
        if is_prefix or operator == "~=":
            upper, is_included = _next(version if is_prefix else version[:-1]), False
        elif operator in ("==", "===", "<=", "<"):
            upper, is_included = version, operator != "<"
        else:
            continue
        if _key(upper) <= _key(high):
            has_high = is_included and (has_high or _key(upper) < _key(high))
            high = upper
    return _key(low) < _key(high) or (_key(low) == _key(high) and has_low and has_high)


def _key(version: tuple[int, ...]) -> tuple[int, ...]:
    """Make versions comparable: 2.0 is 2."""
    return version + (0,) * (8 - len(version))


def _next(prefix: tuple[int, ...]) -> tuple[int, ...]:
    return (*prefix[:-1], prefix[-1] + 1) if prefix else (10**9,)
