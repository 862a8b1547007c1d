"""Wrong answers: the person reads what is wrong and what would be right, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from baking import Baked

GOOD_BUCKET = "acme-xcom"

REFUSED = [
    pytest.param("project_name", "", "'' must not be empty. For example: My Airflow", id="name-empty"),
    pytest.param("project_name", "   ", "must not be empty", id="name-blank"),
    pytest.param("project_name", " Sales", "must not begin or end with a space", id="name-leading-space"),
    pytest.param("project_name", "x" * 61, "has 61 characters, at most 60 are allowed", id="name-long"),
    pytest.param("project_name", 'Sales "EU"', "contains '\"'; allowed are letters", id="name-quote"),
    pytest.param("project_name", "a\nRUN id", "contains '\\n'; allowed are", id="name-newline"),
    pytest.param("project_name", "$(id)", "contains '$'; allowed are", id="name-shell"),
    pytest.param("project_name", "a\u202eb", "contains '\\u202e'; allowed are", id="name-reversed-text"),
    pytest.param("project_name", "...", "needs at least one letter or digit", id="name-only-signs"),
    pytest.param(
        "project_slug", "", "'' must not be empty. For example: my-airflow, MyAirflow", id="slug-empty"
    ),
    pytest.param("project_slug", "my airflow", "contains ' '; allowed are A-Z", id="slug-space"),
    pytest.param("project_slug", "etl ", "contains ' '; allowed are", id="slug-trailing-space"),
    pytest.param(
        "project_slug", "etl.", "must not end with a dot, Windows would drop it", id="slug-trailing-dot"
    ),
    pytest.param("project_slug", ".etl", "must begin with a letter or digit", id="slug-hidden"),
    pytest.param("project_slug", "-etl", "must begin with a letter or digit", id="slug-option"),
    pytest.param("project_slug", "con", "is a device name on Windows (CON)", id="slug-device"),
    pytest.param("project_slug", "Nul.v2", "is a device name on Windows (NUL)", id="slug-device-with-ending"),
    pytest.param("project_slug", "COM0", "is a device name on Windows (COM0)", id="slug-device-number"),
    pytest.param("project_slug", "x" * 51, "has 51 characters, at most 50 are allowed", id="slug-long"),
    pytest.param("project_slug", "caf\u00e9", "contains 'é'; allowed are", id="slug-accent"),
    pytest.param("project_slug", "a:b", "contains ':'; allowed are", id="slug-colon"),
    pytest.param("project_slug", "a'''b", 'contains "\'"; allowed are', id="slug-python-quotes"),
    pytest.param("project_slug", "a$(id)", "contains '$' '(' ')'; allowed are", id="slug-shell"),
    pytest.param("project_slug", "a\\b", "is a path, not a name", id="slug-backslash"),
    pytest.param("gcs_bucket", "", "has 0 characters, at least 3 are needed", id="bucket-empty"),
    pytest.param("gcs_bucket", "ab", "has 2 characters, at least 3 are needed", id="bucket-short"),
    pytest.param("gcs_bucket", "x" * 64, "has 64 characters, at most 63 are allowed", id="bucket-long"),
    pytest.param(
        "gcs_bucket", ".".join(["x" * 60] * 4), "has 243 characters, at most 222", id="bucket-long-dots"
    ),
    pytest.param(
        "gcs_bucket", "a." + "x" * 64, "more than 63 characters between two dots", id="bucket-long-part"
    ),
    pytest.param("gcs_bucket", "Acme", "contains 'A'; allowed are a-z", id="bucket-capital"),
    pytest.param("gcs_bucket", "acme xcom", "contains ' '; allowed are a-z", id="bucket-space"),
    pytest.param("gcs_bucket", "acme\nxcom", "contains '\\n'; allowed are a-z", id="bucket-newline"),
    pytest.param(
        "gcs_bucket", "acme-xcom\n", "contains '\\n'; allowed are a-z", id="bucket-trailing-newline"
    ),
    pytest.param("gcs_bucket", 'a"; rm -rf x #', "contains ' ' '\"' '#' ';'; allowed are", id="bucket-shell"),
    pytest.param(
        "gcs_bucket", "-acme", "must begin and end with a small letter or digit", id="bucket-hyphen"
    ),
    pytest.param(
        "gcs_bucket", "acme_", "must begin and end with a small letter or digit", id="bucket-underscore"
    ),
    pytest.param("gcs_bucket", "a..b", "must not have a dot beside a dot or hyphen", id="bucket-two-dots"),
    pytest.param("gcs_bucket", "a.-b", "must not have a dot beside a dot or hyphen", id="bucket-dot-hyphen"),
    pytest.param("gcs_bucket", "10.0.0.1", "looks like an IP address", id="bucket-address"),
    pytest.param("gcs_bucket", "goog-xcom", "must not begin with 'goog'", id="bucket-goog"),
    pytest.param("gcs_bucket", "my-g00gle", "must not contain 'google' or anything", id="bucket-google"),
    pytest.param(
        "gcs_bucket",
        "gs://acme/x",
        "must be the name alone, without gs://. For example: acme",
        id="bucket-uri",
    ),
]

ACCEPTED = [
    pytest.param({"project_slug": "MyAirflow"}, "myairflow", id="capitals"),
    pytest.param({"project_slug": "etl.v2"}, "etl-v2", id="dot"),
    pytest.param({"project_slug": "under_score-"}, "under-score", id="underscore-and-last-hyphen"),
    pytest.param({"project_slug": "123"}, "123", id="number"),
    pytest.param({"project_slug": "null"}, "null", id="yaml-null"),
    pytest.param({"project_slug": "1e3"}, "1e3", id="yaml-float"),
    pytest.param({"project_slug": "console"}, "console", id="begins-like-a-device"),
    pytest.param(
        {"project_name": "O'Brien & S\u00f6hne (EU), 2+2"}, "o-brien-sohne-eu-2-2", id="name-with-signs"
    ),
    pytest.param({"gcs_bucket": "xcom.example.com"}, "my-airflow", id="bucket-domain"),
    pytest.param({"gcs_bucket": "a_b-3"}, "my-airflow", id="bucket-underscore"),
    pytest.param({"gcs_bucket": "x" * 63}, "my-airflow", id="bucket-longest"),
]


@pytest.mark.parametrize(("question", "answer", "sentence"), REFUSED)
def test_answer_refused_says_why_and_leaves_nothing(
    baker: Callable[..., Baked], question: str, answer: str, sentence: str
) -> None:
    """The message has the question, the answer and the rule; the output folder stays empty."""
    baked = baker("-f", **{"project_slug": "fine", "gcs_bucket": GOOD_BUCKET, question: answer})

    assert baked.exit_code != 0
    assert f"  {question}: {answer!r} " in baked.said
    assert sentence in baked.said
    assert "Nothing was generated: 1 problem with the answers." in baked.said or "problems with" in baked.said
    assert list(baked.output.iterdir()) == []


@pytest.mark.parametrize(("answers", "compose_name"), ACCEPTED)
def test_answer_accepted_names_folder_and_stack(
    baker: Callable[..., Baked], answers: dict[str, str], compose_name: str
) -> None:
    """Folders that people have are accepted as they are; the stack's name is derived from them."""
    baked = baker(**answers)

    assert baked.exit_code == 0, baked.said
    assert baked.project.name == answers.get("project_slug", compose_name)
    assert f'\nname: "{compose_name}"\n' in (baked.project / "docker-compose.yml").read_text()


def test_answers_all_wrong_are_reported_together(baker: Callable[..., Baked]) -> None:
    """One run is enough to learn of every problem."""
    baked = baker(project_name="a$b", project_slug="con", gcs_bucket="A")

    assert "Nothing was generated: 5 problems with the answers." in baked.said
    for part in (
        "project_name: 'a$b' contains",
        "project_slug: 'con' is a",
        "at least 3",
        "contains 'A'",
        "must begin and end",
    ):
        assert part in baked.said
    assert list(baked.output.iterdir()) == []


def test_slug_with_parent_folders_tells_what_remains(baker: Callable[..., Baked]) -> None:
    """Cookiecutter makes parent folders before any hook runs: the message says to look for them."""
    baked = baker(project_slug="a/b")

    assert baked.exit_code != 0
    assert "is a path, not a name; cookiecutter may already have made its parent folders" in baked.said
    assert [path for path in baked.output.rglob("*") if path.is_file()] == []


def test_answer_refused_keeps_an_existing_project(baker: Callable[..., Baked]) -> None:
    """With -f -s into a folder that exists, a refusal changes nothing in it."""
    folder = baker(project_slug="keep").project
    (folder / "mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    baked = baker("-f", "-s", project_slug="keep", gcs_bucket="Acme")

    assert baked.exit_code != 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_jinja_in_an_answer_does_not_reach_a_file(baker: Callable[..., Baked]) -> None:
    """An answer that is rendered is checked after rendering."""
    baked = baker(project_name="{% raw %}{{ 1 }}{% endraw %}", project_slug="x")

    assert baked.exit_code != 0
    assert "contains '{' '}'" in baked.said


def test_next_steps_are_printed(baker: Callable[..., Baked]) -> None:
    """After a good run the person reads what to type."""
    baked = baker(project_slug="etl.v2", gcs_bucket="acme-xcom")

    assert "etl.v2 is ready." in baked.said
    assert "  docker compose up -d --build --wait --wait-timeout 300    (or: astro dev start)" in baked.said
    assert "create the bucket gs://acme-xcom" in baked.said
    assert "By hand:" not in baked.said
