"""Print what to do next. Reads a few files of the project; writes and deletes none.

Two folders go if they are empty: a folder's name cannot depend on an answer, as a file's can.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator

BACKEND = "AIRFLOW__CORE__XCOM_BACKEND=include.xcom_backend.GCPBucketXComBackend"
NEEDED = ("apache-airflow-providers-google", "pyarrow", "orjson", "ormsgpack", "zstandard")


SERVICES = ("scheduler", "dag-processor", "api-server", "triggerer")
COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml")


def text_of(name: str) -> str:
    """Return the text of a file, empty if there is none."""
    try:
        return pathlib.Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def left_to_do() -> Iterator[str]:
    """Yield what a file that was there before the template still lacks (cookiecutter -f -s)."""
    if BACKEND not in text_of("Dockerfile").replace(
        "ENV AIRFLOW__CORE__XCOM_BACKEND ", "ENV AIRFLOW__CORE__XCOM_BACKEND="
    ):
        yield "Dockerfile: add the line  ENV " + BACKEND
    if "GCPBucketXComBackend" not in text_of("airflow_local_settings.py"):
        yield "airflow_local_settings.py: add the lines that set the backend for astro dev start --standalone"
    requirements = text_of("requirements.txt").lower().replace("_", "-")
    if missing := [name for name in NEEDED if name not in requirements]:
        yield "requirements.txt: add " + ", ".join(missing) + ", each with a lower bound"
    if "STORAGE_EMULATOR_HOST" not in text_of("docker-compose.override.yml"):
        yield "docker-compose.override.yml: add the service gcs and the environment that points at it"
    for name in COMPOSE_FILES:
        if pathlib.Path(name).is_file():
            yield (
                "docker-compose.yml: docker compose reads this one or " + name + ", not both; "
                "to go on with yours, put COMPOSE_FILE=" + name + " into .env"
            )
    compose = text_of("docker-compose.yml")
    if missing := [name for name in SERVICES if f" {name}:" not in compose]:
        yield (
            "docker-compose.override.yml: docker-compose.yml has no service " + ", ".join(missing) + "; "
            "to go on with yours alone, put COMPOSE_FILE=docker-compose.yml into .env"
        )


def main() -> None:
    """Say what is there and what to do with it."""
    answers = json.loads(r"""{{ cookiecutter | tojson }}""")
    for folder in (".github/workflows", ".github"):
        with contextlib.suppress(OSError):  # It has files.
            pathlib.Path(folder).rmdir()
    slug, bucket = answers["project_slug"], answers["gcs_bucket"]
    lines = ["", f"{slug} is ready."]
    if todo := list(left_to_do()):
        lines += ["", "Files that were there before stay as they were. By hand:"]
        lines += [f"  - {line}" for line in todo]
        lines += [
            "This adds these lines (look at them first: without | sh it only prints):",
            f"  cd {slug}",
            "  python3 -m include.xcom doctor --fixes | sh",
        ]
    lines += [
        "",
        "Next:",
        f"  cd {slug}",
        "  docker compose up -d --build --wait --wait-timeout 300    (or: astro dev start)",
        "  open http://localhost:8080",
        "",
        f"Before production: create the bucket gs://{bucket}; README.md says how to grant and name it.",
        "",
    ]
    print("\n".join(ascii(line)[1:-1] if not line.isascii() else line for line in lines))


if __name__ == "__main__":
    main()
