"""Print what to do next. Reads a few files of the project; writes and deletes none.

Two folders are removed if they are empty: a folder's name cannot depend on an answer, as a file's can.
"""

import contextlib
import io
import json
import pathlib
import sys


def left_to_do() -> list[str]:
    """Return what files that were there before the template lack (cookiecutter -f -s), as the doctor sees it."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(pathlib.Path.cwd()))
    from include.xcom.commands.project import examine_project

    return [finding.message for finding in examine_project(pathlib.Path()) if finding.level != "ok"]


def main() -> None:
    """Remove empty folders, and print the next steps."""
    answers = json.loads(r"""{{ cookiecutter | tojson }}""")
    for folder in (".github/workflows", ".github"):
        with contextlib.suppress(OSError):  # It has files.
            pathlib.Path(folder).rmdir()
    slug, bucket = answers["project_slug"], answers["gcs_bucket"]
    lines = ["", f"{slug} is ready."]
    if todo := left_to_do():
        lines += ["", "Files that were there before are unchanged. They need:"]
        lines += [f"  - {line}" for line in todo]
        lines += [
            "",
            "This adds missing lines, except where it says that a person has to (without | sh it only prints):",
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # A terminal may lack letters.
    print("\n".join(lines))


if __name__ == "__main__":
    main()
