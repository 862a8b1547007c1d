"""Check the answers before anything is written.

cookiecutter runs this in the new folder, still empty, and removes that folder when the exit code is
not 0. Standard library only; it reads the answers as JSON, so that no answer can become code.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator

# Device names of Windows: with or without an ending, no file or folder may have them.
RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}
NAME_SIGNS = " ._-,&+()'"
BOOLEANS = (True, False)


def check_project_name(name: str) -> Iterator[tuple[str, str]]:
    """Yield each rule that a name for people breaks, and a name that breaks none."""
    if not name.strip():
        yield "must not be empty", "My Airflow"
        return
    if name != name.strip():
        yield "must not begin or end with a space", "My Airflow"
    if len(name) > 60:
        yield f"has {len(name)} characters, at most 60 are allowed", "My Airflow"
    if strange := sorted({c for c in name if not c.isalnum() and c not in NAME_SIGNS}):
        yield (
            f"contains {_shown(strange)}; allowed are letters, digits, spaces and {_shown(NAME_SIGNS.strip())}",
            "Sales & Returns (EU)",
        )
    elif not any(c.isalnum() for c in name):
        yield "needs at least one letter or digit", "My Airflow"


def check_project_slug(slug: str) -> Iterator[tuple[str, str]]:
    """Yield each rule that the name of a folder breaks, and a name that breaks none."""
    example = "my-airflow, MyAirflow or etl.v2"
    if not slug:
        yield "must not be empty", example
        return
    if len(slug) > 50:
        yield f"has {len(slug)} characters, at most 50 are allowed", example
    strange = sorted(set(re.findall(r"[^A-Za-z0-9._-]", slug)))
    if strange:
        yield f"contains {_shown(strange)}; allowed are A-Z, a-z, 0-9, '-', '_' and '.'", example
    if {"/", "\\"} & set(strange):
        rule = "is a path, not a name; cookiecutter may already have made its parent folders, look for "
        yield rule + "empty ones. The place is chosen with --output-dir", example
    if not re.match(r"[A-Za-z0-9]", slug):
        yield "must begin with a letter or digit", example
    if slug.endswith("."):
        yield "must not end with a dot, Windows would drop it", example
    if slug.split(".")[0].strip().lower() in RESERVED:
        yield (
            f"is a device name on Windows ({slug.split('.')[0].upper()}), no folder can have it there",
            example,
        )


def check_gcs_bucket(bucket: str) -> Iterator[tuple[str, str]]:
    """Yield each rule of cloud.google.com/storage/docs/buckets#naming that is broken, and a good name."""
    example = "acme-airflow-xcom"
    if bucket.startswith("gs://"):
        name = bucket[5:].split("/")[0]
        yield "must be the name alone, without gs://", example if any(check_gcs_bucket(name)) else name
        return
    parts = bucket.split(".")
    if len(bucket) < 3:
        yield f"has {len(bucket)} characters, at least 3 are needed", example
    if len(parts) == 1 and len(bucket) > 63:
        yield f"has {len(bucket)} characters, at most 63 are allowed in a name without dots", example
    if len(bucket) > 222:
        yield f"has {len(bucket)} characters, at most 222 are allowed in a name with dots", "xcom.example.com"
    if len(parts) > 1 and any(len(part) > 63 for part in parts):
        yield "has more than 63 characters between two dots", "xcom.example.com"
    if strange := sorted(set(re.findall(r"[^a-z0-9._-]", bucket))):
        yield f"contains {_shown(strange)}; allowed are a-z, 0-9, '-', '_' and '.'", example
    if bucket and not (re.match(r"[a-z0-9]", bucket) and re.search(r"[a-z0-9]\Z", bucket)):
        yield "must begin and end with a small letter or digit", example
    if re.search(r"\.\.|\.-|-\.", bucket):
        yield "must not have a dot beside a dot or hyphen", "xcom.example.com"
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", bucket):
        yield "looks like an IP address", example
    if bucket.startswith("goog"):
        yield "must not begin with 'goog'", example
    elif re.search(r"g[o0]{2}g[l1i]e", bucket):
        yield "must not contain 'google' or anything that looks like it", example


def check_choice(allowed: list[str]) -> Callable[[str], Iterator[tuple[str, str]]]:
    """Return a check for one of several answers."""

    def check(answer: str) -> Iterator[tuple[str, str]]:
        # cookiecutter refuses any other choice itself, except where it is given a list of its own.
        if answer not in allowed:
            yield f"must be one of {', '.join(allowed)}", allowed[0]

    return check


def check_boolean(answer: object) -> Iterator[tuple[str, str]]:
    """Yield the rule that an answer breaks if it is neither true nor false."""
    if answer not in BOOLEANS:
        yield "must be true or false", "true"


CHECKS: dict[str, Callable[..., Iterator[tuple[str, str]]]] = {
    "project_name": check_project_name,
    "project_slug": check_project_slug,
    "runtime_version": check_choice(["3.3-8", "3.2-9", "3.1-21"]),
    "gcs_bucket": check_gcs_bucket,
    "executor": check_choice(["LocalExecutor", "CeleryExecutor"]),
    "dataframe_library": check_choice(["pandas", "polars"]),
    "include_examples": check_boolean,
    "ci": check_choice(["none", "github"]),
}


def problems(answers: dict[str, str]) -> list[str]:
    """Return one line for every rule that an answer breaks."""
    lines = []
    for name, check in CHECKS.items():
        for rule, example in check(answers[name]):
            lines.append(f"  {name}: {answers[name]!r} {rule}. For example: {example}")
    return lines


def _shown(characters: Iterable[str]) -> str:
    # Letters as they are, what cannot be seen as its code. A terminal without a letter gets its code, too.
    return " ".join(repr(c) for c in characters)


def main() -> int:
    """Print every problem at once; return the exit code."""
    answers = json.loads(r"""{{ cookiecutter | tojson }}""")
    found = problems(answers)
    if not found:
        return 0
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    print(f"\nNothing was generated: {count} with the answers.", file=sys.stderr)
    print("\n".join(found), file=sys.stderr)
    print(
        "Answer again, or give answers on the command line: cookiecutter TEMPLATE project_slug=my-airflow\n",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
