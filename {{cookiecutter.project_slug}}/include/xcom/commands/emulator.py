"""``emulator``: the bucket of this machine, added to a docker-compose.override.yml of one's own.

``astro dev start`` reads that file and no other, so it has to be the one that is there. It is edited as
text, line by line: comments and order stay, nothing is rewritten. Where a file is written in a way that
cannot be extended so (anchors, values in one line), nothing is changed, and the reason is said.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["FILE", "MergeError", "add_emulator", "is_defined", "merged", "services_missing"]

FILE = "docker-compose.override.yml"

# The same as in the template's own docker-compose.override.yml; a test compares them.
_SERVICES = ("scheduler", "dag-processor", "api-server", "triggerer")
_ENVIRONMENT = {
    "AIRFLOW_VAR_XCOM_BACKEND_DATA_GCS_NAME": "${XCOM_BUCKET:-xcom-local}",
    "AIRFLOW_CONN_GOOGLE_CLOUD_STORAGE_DEFAULT": '{"conn_type": "google_cloud_platform", "extra": {"is_anonymous": true}}',
    "STORAGE_EMULATOR_HOST": "http://gcs:4443",
}
_GCS = """\
# The bucket of this machine; not for production.
gcs:
  image: fsouza/fake-gcs-server:1.56.1
  restart: unless-stopped
  environment:
    BUCKET: "${XCOM_BUCKET:-xcom-local}"
  entrypoint: ["/bin/sh", "-c"]
  command:
    - >-
      mkdir -p "/storage/$$BUCKET" &&
      exec fake-gcs-server -scheme http -port 4443 -backend filesystem -filesystem-root /storage
  ports:
    - "127.0.0.1:${GCS_PORT:-4443}:4443"
  networks:
    - airflow
  volumes:
    - gcs_data:/storage
  healthcheck:
    test: ["CMD-SHELL", "wget -q -O /dev/null http://127.0.0.1:4443/storage/v1/b/$$BUCKET"]
    interval: 5s
    timeout: 5s
    retries: 20
"""


class MergeError(ValueError):
    """The file cannot be extended line by line."""


def add_emulator(project: Path) -> bool:
    """Extend the project's override file, or make it; tell whether it was changed.

    Raises:
        MergeError: The file is written in a way that needs a person; it is as it was.
    """
    path = project / FILE
    before = path.read_text("utf-8") if path.is_file() else ""
    after = merged(before)
    if after != before:
        path.write_text(after, "utf-8", newline="\n")
    return after != before


def is_defined(text: str) -> bool:
    """Tell whether an override file points Airflow at an emulator."""
    return bool(re.search(r"^[^#\n]*STORAGE_EMULATOR_HOST", text, re.M))


def services_missing(text: str) -> list[str]:
    """Name the services of the Astro CLI that a Compose file lacks."""
    names = _names(_Section(text.splitlines(), "services").lines())
    return [name for name in _SERVICES if name not in names]


def merged(text: str) -> str:
    """Return the text of an override file with the emulator in it.

    Raises:
        MergeError: See ``add_emulator``.
    """
    if is_defined(text):
        return text
    lines = text.splitlines()
    services = _Section(lines, "services")
    names = _names(services.lines())
    if "gcs" in names:
        raise MergeError("it has another service gcs")
    added = ["", *(" " * services.indent + line for line in _GCS.splitlines())]
    for name in _SERVICES:
        if name not in names:
            added += ["", *_new_service(name, services.indent)]
    # From the end to the beginning: numbers of lines above stay right.
    services.append(added)
    for name, number in sorted(names.items(), key=lambda item: -item[1]):
        if name in _SERVICES:
            _extend(lines, services.first + number, name)
    _Section(lines, "volumes").append(["gcs_data:"], is_indented=False)
    return "\n".join(lines) + "\n"


class _Section:
    """A key at the top of the file, written over several lines; added where it is missing."""

    def __init__(self, lines: list[str], name: str) -> None:
        self._all = lines
        found = [number for number, line in enumerate(lines) if re.match(rf"['\"]?{name}['\"]?\s*:", line)]
        if not found:
            lines.extend([*([""] if lines and lines[-1].strip() else []), f"{name}:"])
            found = [len(lines) - 1]
        if not re.fullmatch(rf"{name}:\s*(#.*)?", lines[found[0]]):
            raise MergeError(f"line {found[0] + 1} has {name} in one line or in quotes")
        self.first = found[0] + 1
        self.end = self.first
        for number in range(self.first, len(lines)):
            if re.match(r"[^\s#]", lines[number]):
                break
            if lines[number].startswith(" "):
                self.end = number + 1
        self.indent = _indent(self.lines()) or 2

    def lines(self) -> list[str]:
        return self._all[self.first : self.end]

    def append(self, lines: list[str], *, is_indented: bool = True) -> None:
        """Put lines behind the last one."""
        shift = "" if is_indented else " " * self.indent
        self._all[self.end : self.end] = [f"{shift}{line}" if line.strip() else "" for line in lines]


def _indent(lines: list[str]) -> int:
    """Return the indentation of the first line that counts; 0 where none does."""
    counting = (line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return next((len(line) - len(line.lstrip()) for line in counting), 0)


def _names(lines: list[str]) -> dict[str, int]:
    """Map the keys of a block's first level to the numbers of their lines."""
    key = re.compile("^" + " " * _indent(lines) + r"(['\"]?)([^\s'\"#:][^\s'\":]*)\1\s*:(\s|$)")
    return {found[2]: number for number, line in enumerate(lines) if (found := key.match(line))}


def _block(lines: list[str], first: int) -> list[str]:
    """Return the lines below a key, without empty ones and comments behind the last."""
    own = _indent([lines[first]])
    end = last = first + 1
    while end < len(lines):
        line = lines[end]
        if line.strip() and not line.lstrip().startswith("#"):
            here = len(line) - len(line.lstrip())
            # A list may stand as far left as its key.
            if here < own or (here == own and not line.lstrip().startswith("- ")):
                break
            last = end + 1
        end += 1
    return lines[first + 1 : last]


def _extend(lines: list[str], first: int, name: str) -> None:
    """Add environment and dependency to a service that is there."""
    block = _block(lines, first)
    keys = _names(block)
    if "<<" in keys or not block or not re.search(r":\s*(#.*)?$", lines[first]):
        raise MergeError(f"its service {name} takes values from an anchor or stands in one line")
    depth = _indent(block)
    # The later one of both first.
    for key in sorted(("environment", "depends_on"), key=lambda one: -keys.get(one, len(block))):
        if key not in keys:
            where = first + 1 + len(block)
            new = _environment(False) if key == "environment" else _dependency(False)
            lines[where:where] = [" " * depth + f"{key}:", *(" " * (depth + 2) + line for line in new)]
            continue
        number = first + 1 + keys[key]
        inner = _block(lines, number)
        if not inner or not re.search(r":\s*(#.*)?$", lines[number]):
            raise MergeError(f"{key} of its service {name} stands in one line")
        is_list = inner[_first_counting(inner)].lstrip().startswith("- ")
        new = _environment(is_list) if key == "environment" else _dependency(is_list)
        where = number + 1 + len(inner)
        lines[where:where] = [" " * _indent(inner) + line for line in new]


def _first_counting(lines: list[str]) -> int:
    return next(n for n, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#"))


def _new_service(name: str, indent: int) -> list[str]:
    inner = ["environment:", *(f"  {line}" for line in _environment(False))]
    inner += ["depends_on:", *(f"  {line}" for line in _dependency(False))]
    return [" " * indent + f"{name}:", *(" " * (indent + 2) + line for line in inner)]


def _environment(is_list: bool) -> list[str]:
    if is_list:
        return [f"- '{name}={value}'" for name, value in _ENVIRONMENT.items()]
    return [f"{name}: '{value}'" for name, value in _ENVIRONMENT.items()]


def _dependency(is_list: bool) -> list[str]:
    return ["- gcs"] if is_list else ["gcs:", "  condition: service_healthy"]
