"""Print what to do next. Reads a few files of the project; writes and deletes nothing."""

import json
import pathlib

BACKEND = "AIRFLOW__CORE__XCOM_BACKEND=include.xcom_backend.GCPBucketXComBackend"
NEEDED = ("apache-airflow-providers-google", "pyarrow", "orjson", "ormsgpack", "zstandard")


def text_of(name):
    try:
        return pathlib.Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def left_to_do():
    """Yield what a file that was there before the template still lacks (cookiecutter -f -s)."""
    if BACKEND not in text_of("Dockerfile").replace(
        "ENV AIRFLOW__CORE__XCOM_BACKEND ", "ENV AIRFLOW__CORE__XCOM_BACKEND="
    ):
        yield "Dockerfile: add the line  ENV " + BACKEND
    requirements = text_of("requirements.txt").lower().replace("_", "-")
    if missing := [name for name in NEEDED if name not in requirements]:
        yield "requirements.txt: add " + ", ".join(missing) + " (lower bounds: README.md of the template)"
    if "fake-gcs-server" not in text_of("docker-compose.override.yml"):
        yield "docker-compose.override.yml: add the service gcs and the environment that points at it"


def main():
    answers = json.loads(r"""{{ cookiecutter | tojson }}""")
    slug, bucket = answers["project_slug"], answers["gcs_bucket"]
    lines = ["", f"{slug} is ready."]
    if todo := list(left_to_do()):
        lines += ["", "Files that were there before stay as they were. By hand:"]
        lines += [f"  - {line}" for line in todo]
    lines += [
        "",
        "Next:",
        f"  cd {slug}",
        "  docker compose up -d --build --wait    (or: astro dev start)",
        "  open http://localhost:8080",
        "",
        f"Before production: create the bucket gs://{bucket}; README.md says how to grant and name it.",
        "",
    ]
    print("\n".join(ascii(line)[1:-1] if not line.isascii() else line for line in lines))


if __name__ == "__main__":
    main()
