"""What the doctor finds in the files of a project, and what it leaves alone."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from include.xcom.commands.dockerfile import airflow_2, images_of
from include.xcom.commands.doctor import print_fixes
from include.xcom.commands.project import BACKEND, REQUIREMENTS, STATE_BACKEND, examine_project
from include.xcom.commands.requirement_files import versions_overlap

COMMON_IO = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"
RUNTIME = "FROM astrocrpublic.azurecr.io/runtime:3.3-8\n"
ENV = (
    f"ENV AIRFLOW__CORE__XCOM_BACKEND={BACKEND}\nENV AIRFLOW__WORKERS__STATE_STORE_BACKEND={STATE_BACKEND}\n"
)
COMPLETE = "".join(f"{name}>={least}\n" for name, least in REQUIREMENTS.items())


def lay_out(folder: Path, **files: str | bytes) -> Path:
    """Write a project that needs nothing, but for some files; underscores stand for dots."""
    texts = {"Dockerfile": RUNTIME + ENV, "requirements.txt": COMPLETE} | files
    for name, text in texts.items():
        data = text if isinstance(text, bytes) else text.encode()
        (folder / name).write_bytes(data)
    return folder


def problems(folder: Path) -> list[str]:
    """Return the messages of what is wrong."""
    return [one.message for one in examine_project(folder) if one.level == "problem"]


def fix(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Paste the fixes into a shell; return them."""
    monkeypatch.chdir(folder)
    print_fixes(folder)
    script = capsys.readouterr().out
    subprocess.run(["sh", "-e"], input=script, text=True, cwd=folder, check=True)
    return script


@pytest.mark.parametrize(
    ("image", "is_2"),
    [
        ("quay.io/astronomer/astro-runtime:11.7.0", True),
        ("quay.io/astronomer/astro-runtime:13.0.0-python-3.11-base", True),
        ("registry.acme.com:5000/mirror/astro-runtime@sha256:0011", True),
        ("astro-runtime", True),
        ("apache/airflow:2.10.5", True),
        ("apache/airflow:slim-2.9.3-python3.12", True),
        ("apache/airflow:2", True),
        ("eu.gcr.io/acme/airflow:v2.8-7", True),
        ("bitnami/airflow:2.8.1-debian-11-r0", True),
        ("astrocrpublic.azurecr.io/runtime:3.1-14", False),
        ("apache/airflow:3.3.2-python3.12", False),
        ("apache/airflow:latest-python2.7", False),
        ("acme/airflow:20260101", False),
        ("python:2.7", False),
    ],
)
def test_image_of_airflow_2_is_told_by_its_name_and_tag(image: str, is_2: bool) -> None:
    """Whatever its registry, and in every form that tags have."""
    assert airflow_2(image) is is_2


def test_images_of_stages_have_their_arguments_filled_in() -> None:
    """Options, names of stages, defaults, continuations, comments, and other spellings."""
    text = """\
# syntax=docker/dockerfile:1
ARG VERSION=11.7.0
ARG REGISTRY="quay.io/astronomer"
from --platform=linux/amd64 \\
  # the image
  ${REGISTRY}/astro-runtime:${VERSION} AS base
FROM apache/airflow:${TAG:-2.10.5} as other
FROM base
"""
    assert list(images_of(text)) == ["quay.io/astronomer/astro-runtime:11.7.0", "apache/airflow:2.10.5"]


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"Dockerfile": "FROM quay.io/astronomer/astro-runtime:11.7.0\n"}, id="image"),
        pytest.param(
            {"Dockerfile": RUNTIME, "requirements.txt": "apache-airflow==2.10.5\n"}, id="requirement"
        ),
        pytest.param(
            {
                "Dockerfile": RUNTIME,
                "requirements.txt": "-c https://raw.githubusercontent.com/apache/airflow/"
                "constraints-2.10.5/constraints-3.12.txt\n",
            },
            id="constraints",
        ),
        pytest.param(
            {
                "Dockerfile": RUNTIME,
                "docker-compose.yaml": "services:\n  a:\n    image: apache/airflow:2.9.1\n",
            },
            id="compose",
        ),
    ],
)
def test_airflow_2_is_refused_before_anything_is_added(
    files: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reason is printed as a comment, and the files stay as they are."""
    project = lay_out(tmp_path, **files)

    script = fix(project, capsys, monkeypatch)

    assert "Airflow 2" in script
    assert (project / "Dockerfile").read_text() == files["Dockerfile"]
    assert (project / "requirements.txt").read_text() == files.get("requirements.txt", COMPLETE)


@pytest.mark.parametrize(
    ("requirements", "constraints", "words"),
    [
        ("numpy<2\n", "", "requirements.txt line 1: numpy<2"),
        ("# old\nPandas == 2.1.4  # pinned\n", "", "requirements.txt line 2: pandas== 2.1.4"),
        ("pyarrow==14.0.2 ; python_version >= '3.8'\n", "", ""),
        ("-c constraints.txt\nnumpy\n", "numpy==1.26.4\n", "constraints.txt line 1: numpy==1.26.4"),
        ("--constraint=constraints.txt\n", "urllib3~=1.26\n", "constraints.txt line 1: urllib3~=1.26"),
        ("-r constraints.txt\n", "orjson===3.9.0\n", "constraints.txt line 1: orjson===3.9.0"),
        (
            "apache-airflow-providers-google[gcp_api]==10.17.0\n",
            "",
            "apache-airflow-providers-google==10.17.0",
        ),
        ("numpy \\\n  >=1.0, \\\n  <2\n", "", "numpy>=1.0"),
        ("google_auth==2.*\n", "", ""),
    ],
)
def test_pins_that_exclude_what_the_backend_needs_are_problems(
    requirements: str, constraints: str, words: str, tmp_path: Path
) -> None:
    """In requirements and in local files that they include; a line with a marker may not apply."""
    project = lay_out(tmp_path, **{"requirements.txt": requirements, "constraints.txt": constraints})

    found = [one for one in problems(project) if "excludes" in one]

    assert len(found) == bool(words)
    assert all(words in one.replace("   ", "") for one in found)


def test_versions_overlap_as_packaging_says() -> None:
    """For bounds of every kind, compared with a fine grid of versions."""
    packaging = pytest.importorskip("packaging.specifiers")
    grid = [f"{major}.{minor}.{patch}" for major in range(4) for minor in range(12) for patch in range(5)]
    clauses = [
        "",
        "==2.2.3",
        "==2.2",
        "==2.*",
        "==2.2.*",
        "~=2.2",
        "~=2.2.1",
        "<2.2",
        "<=2.2",
        ">2.2",
        ">=2.3",
    ]
    clauses += ["<2", ">=1,<2.2.3", ">1.0,<=2.2.3", "!=2.2.3", "===2.1.0"]
    for specifier, wanted in itertools.product(clauses, [">=2.2", ">=2.2.3", ">=2", ">=1.5,<2.3"]):
        both = packaging.SpecifierSet(f"{specifier},{wanted}".strip(","))
        assert versions_overlap(specifier, wanted) == any(both.contains(one) for one in grid), (
            specifier,
            wanted,
        )


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ({".env": f"A=1\nAIRFLOW__CORE__XCOM_BACKEND={COMMON_IO}\n"}, ".env line 2"),
        ({".env": f"export AIRFLOW__CORE__XCOM_BACKEND='{COMMON_IO}'\n"}, ".env line 1"),
        ({"Dockerfile": f"{RUNTIME}ENV AIRFLOW__CORE__XCOM_BACKEND={COMMON_IO}\n"}, "Dockerfile line 2"),
        (
            {"Dockerfile": f"{RUNTIME}ENV A=1 \\\n  AIRFLOW__CORE__XCOM_BACKEND {COMMON_IO}\n"},
            "Dockerfile line 2",
        ),
        (
            {
                "docker-compose.override.yml": "services:\n  scheduler:\n    environment:\n"
                f"      AIRFLOW__CORE__XCOM_BACKEND: {COMMON_IO}\n      STORAGE_EMULATOR_HOST: x\n"
            },
            "docker-compose.override.yml line 4",
        ),
        (
            {
                "docker-compose.yml": f"services:\n  a:\n    environment:\n    - AIRFLOW__CORE__XCOM_BACKEND={COMMON_IO}"
            },
            "docker-compose.yml line 4",
        ),
        ({"airflow.cfg": f"[core]\nxcom_backend = {COMMON_IO}\n"}, "airflow.cfg"),
    ],
)
def test_another_backend_is_a_problem_with_its_place(
    files: dict[str, str],
    place: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A person removes the line; nothing is added before."""
    project = lay_out(tmp_path, **files)
    before = (project / "Dockerfile").read_bytes()

    found = problems(project)[0]

    assert found.startswith(f"{place} sets the XCom backend to {COMMON_IO}")
    assert "legacy_references" in found
    fix(project, capsys, monkeypatch)
    assert (project / "Dockerfile").read_bytes() == before


@pytest.mark.parametrize(
    "files",
    [
        {".env": f"# AIRFLOW__CORE__XCOM_BACKEND={COMMON_IO}\n"},
        {".env": f"AIRFLOW__CORE__XCOM_BACKEND={BACKEND}\n"},
        {"Dockerfile": f"{RUNTIME}ENV AIRFLOW__CORE__XCOM_BACKEND={COMMON_IO}\n{ENV}"},
        {"airflow.cfg": "[core]\nxcom_backend = airflow.sdk.execution_time.xcom.BaseXCom\n"},
        {"airflow.cfg": "no section\n"},
    ],
)
def test_lines_that_set_no_other_backend_are_fine(files: dict[str, str], tmp_path: Path) -> None:
    """Comments, our own, a later line of the Dockerfile, and the default that the Dockerfile overrides."""
    assert problems(lay_out(tmp_path, **files)) == []


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        pytest.param("requirements.txt", "pandas\n".encode("utf-16"), "it is UTF-16", id="utf-16"),
        pytest.param(
            "requirements.txt", b"p\0a\0n\0d\0a\0s\0", "without a byte order mark", id="utf-16-bare"
        ),
        pytest.param("requirements.txt", b"numpy==2.3 --hash=sha256:00\n", "pip refuses lines", id="hashes"),
        pytest.param("requirements.txt", b"--require-hashes\n", "pip refuses lines", id="require-hashes"),
        pytest.param(
            "Dockerfile", RUNTIME.encode() + b"RUN echo a \\\n", "ends in a continuation", id="continuation"
        ),
        pytest.param(
            "Dockerfile",
            b"# escape=`\n" + RUNTIME.encode() + b"RUN echo a `\n# b\n",
            "ends in a continuation",
            id="other-escape",
        ),
    ],
)
def test_file_that_lines_would_break_is_left_alone_with_the_reason(
    name: str,
    data: bytes,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is to be added is printed, and a person adds it."""
    project = lay_out(tmp_path, **{name: data})

    script = fix(project, capsys, monkeypatch)

    assert f"{name} is left unchanged: " in script
    assert words in script
    assert (project / name).read_bytes() == data


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("requirements.txt", "# für später\npandas>=2.2.3".encode("latin-1"), id="latin-1"),
        pytest.param("requirements.txt", b"\xef\xbb\xbfpandas>=2.2.3\r\n", id="utf-8-mark-and-crlf"),
        pytest.param("requirements.txt", b"pandas>=2.2.3 \\\n", id="continuation"),
        pytest.param("Dockerfile", RUNTIME.strip().encode(), id="no-line-end"),
        pytest.param("Dockerfile", RUNTIME.replace("\n", "\r\n").encode(), id="crlf"),
    ],
)
def test_lines_are_added_to_every_file_that_they_do_not_break(
    name: str,
    data: bytes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was there stays, and the next doctor is content."""
    project = lay_out(tmp_path, **{name: data})
    assert problems(project) != []

    fix(project, capsys, monkeypatch)

    assert (project / name).read_bytes().startswith(data)
    assert problems(project) == []
