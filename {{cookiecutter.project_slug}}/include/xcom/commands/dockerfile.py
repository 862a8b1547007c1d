"""Read a Dockerfile, as far as the doctor needs: base images, and the backend that ENV sets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Instruction", "airflow_2", "ends_in_continuation", "images_of", "instructions_of"]

_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|(\w+))")


class Instruction(NamedTuple):
    """One instruction, its continuations joined.

    Attributes:
        name: In capitals.
        words: What follows.
        line: Number of its first line.
    """

    name: str
    words: str
    line: int


def instructions_of(text: str) -> Iterator[Instruction]:
    """Yield the instructions; comments within them are left out."""
    escape = _escape(text)
    joined, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first = first if joined else number
        line = line.rstrip()
        if line.endswith(escape):
            joined += line[:-1] + " "
            continue
        yield _instruction(joined + line, first)
        joined = ""
    if joined.strip():
        yield _instruction(joined, first)


def _instruction(line: str, number: int) -> Instruction:
    name, *words = line.split(None, 1)
    return Instruction(name.upper(), "".join(words).strip(), number)


def ends_in_continuation(text: str) -> bool:
    """Tell whether a line that is appended would become a part of the last instruction."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return bool(lines) and lines[-1].rstrip().endswith(_escape(text))


def _escape(text: str) -> str:
    found = re.match(r"(?:\s*#[^\n]*\n)*?\s*#\s*escape\s*=\s*(\S)", text, re.IGNORECASE)
    return found[1] if found else "\\"


def images_of(text: str) -> Iterator[str]:
    """Yield the images that stages begin with, with the defaults of build arguments filled in."""
    arguments: dict[str, str] = {}
    stages = set()

    def filled(found: re.Match[str]) -> str:
        return arguments.get(found[1] or found[3]) or found[2] or ""

    for instruction in instructions_of(text):
        words = [word for word in instruction.words.split() if not word.startswith("--")]
        if instruction.name == "ARG":
            for word in words:
                name, _, value = word.partition("=")
                arguments[name] = value.strip("\"'")
        elif instruction.name == "FROM" and words:
            image = _VARIABLE.sub(filled, words[0])
            if image.lower() not in stages:
                yield image
            stages.add(words[-1].lower())


def airflow_2(image: str) -> bool:
    """Tell whether an image has Airflow 2, by its name and tag.

    Astro Runtime up to 13 is named ``astro-runtime`` and has Airflow 2; that of Airflow 3 is ``runtime``,
    with Airflow's version in its tag.

    >>> airflow_2("quay.io/astronomer/astro-runtime:11.7.0-base")
    True
    >>> airflow_2("registry.example.com:5000/apache/airflow:slim-2.10.5-python3.11")
    True
    >>> airflow_2("astrocrpublic.azurecr.io/runtime:3.1-14")
    False
    """
    path = image.partition("@")[0]
    folder, _, name = path.rpartition("/")
    name, _, tag = name.partition(":")
    if name == "astro-runtime":
        return True
    if "airflow" not in f"{folder}/{name}" and name != "runtime":
        return False
    version = re.search(r"(?<![\d.])(?<!python)(?<!py)(\d+)(?:\.\d+|$|-)", tag)
    return version is not None and version[1] == "2"
