"""Settings are read once, from Airflow's configuration, and refused with words when they cannot work."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from include.xcom.commands.mode import examine_mode
from include.xcom.errors import SettingsError
from include.xcom.settings import Settings, load_settings


def configure(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Set ``AIRFLOW__GCS_XCOM__*``."""
    for name, value in values.items():
        monkeypatch.setenv(f"AIRFLOW__GCS_XCOM__{name.upper()}", value)
    load_settings.cache_clear()


def test_defaults_are_those_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket is all that must be said."""
    configure(monkeypatch, bucket="acme-xcom")

    assert load_settings() == Settings(
        bucket="acme-xcom",
        prefix="xcom",
        conn_id="google_cloud_storage_default",
        threshold_bytes=49152,
        max_payload_bytes=1024**3,
        concurrency=16,
        timeout_seconds=120,
        frame_format="parquet",
        legacy_references=False,
        read_uris=(),
    )


def test_every_setting_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment, in the forms that people write."""
    configure(
        monkeypatch,
        bucket="gs://acme-xcom/",
        prefix="/prod/xcom/",
        conn_id="gcp",
        threshold_bytes="0",
        max_payload_bytes="1000",
        concurrency="4",
        timeout_seconds="2.5",
        frame_format="Arrow",
        legacy_references="True",
        read_uris="gs://other/xcom/, file:///old",
    )

    assert load_settings() == Settings(
        bucket="acme-xcom",
        prefix="prod/xcom",
        conn_id="gcp",
        threshold_bytes=0,
        max_payload_bytes=1000,
        concurrency=4,
        timeout_seconds=2.5,
        frame_format="arrow",
        legacy_references=True,
        read_uris=("gs://other/xcom/", "file:///old"),
    )


def test_bucket_comes_from_the_variable_when_the_setting_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Variable of the 2023 backend still names it."""
    configure(monkeypatch, bucket="")
    monkeypatch.setenv("AIRFLOW_VAR_XCOM_BACKEND_DATA_GCS_NAME", "acme-variable")

    assert load_settings().bucket == "acme-variable"


def test_all_problems_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the value, what is allowed, and where the value comes from."""
    configure(
        monkeypatch,
        bucket="Acme",
        prefix="a//b",
        threshold_bytes="1_000",
        max_payload_bytes="0",
        concurrency="many",
        timeout_seconds="0",
        frame_format="csv",
        inexact="maybe",
        legacy_references="maybe",
        read_uris="s3://x/",
    )

    with pytest.raises(SettingsError) as caught:
        load_settings()

    text = str(caught.value)
    assert sorted(caught.value.problems) == [
        "bucket",
        "concurrency",
        "frame_format",
        "inexact",
        "legacy_references",
        "max_payload_bytes",
        "prefix",
        "read_uris",
        "threshold_bytes",
        "timeout_seconds",
    ]
    assert "[gcs_xcom] concurrency is 'many'; allowed is a whole number" in text
    assert "from AIRFLOW__GCS_XCOM__CONCURRENCY" in text
    assert "[gcs_xcom] frame_format is 'csv'; allowed are parquet and arrow" in text
    assert "Nothing was stored or read" in text


def test_no_bucket_at_all_names_both_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting and the Variable."""
    configure(monkeypatch, bucket="")

    with pytest.raises(
        SettingsError, match=r"bucket is empty, and there is no .* XCOM_BACKEND_DATA_GCS_NAME"
    ):
        load_settings()


@pytest.mark.parametrize(
    "bucket",
    [
        "ab",
        "a" * 64,
        "-abc",
        "abc-",
        "a..b",
        "a b",
        "a/b",
        "file://host/path",
        "file:relative",
        "file:///"[:7],
    ],
)
def test_bucket_that_gcs_would_refuse_is_refused_at_the_door(bucket: str) -> None:
    """Before anything is sent."""
    with pytest.raises(SettingsError, match="bucket is"):
        Settings(bucket=bucket)


@pytest.mark.parametrize("bucket", ["abc", "acme.example.com", "a_b-c.d", "1ab", "file:///data/xcom"])
def test_bucket_that_gcs_takes_is_taken(bucket: str) -> None:
    """By cloud.google.com/storage/docs/buckets#naming."""
    assert Settings(bucket=bucket).bucket == bucket


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("gs://acme/prod/xcom/dag/x.bin", True),
        ("gs://old/xcom/x.bin", True),
        ("file:///mnt/old/x.bin", True),
        ("gs://acme/prod/xcom/", False),
        ("gs://acme/prod/xcom-other/x.bin", False),
        ("gs://acme/prod/x.bin", False),
        ("gs://acme-other/prod/xcom/x.bin", False),
        ("gs://acme/prod/xcom/../x.bin", False),
        ("gs://acme/prod/xcom/a/./x.bin", False),
        ("gs://acme/prod/xcom//x.bin", False),
        ("gs://old/other/x.bin", False),
        ("file:///mnt/older/x.bin", False),
        ("file:///mnt/old/../x.bin", False),
        ("https://acme/prod/xcom/x.bin", False),
        ("", False),
    ],
)
def test_only_own_place_and_read_uris_are_allowed(uri: str, allowed: bool) -> None:
    """Compared as text, part by part."""
    settings = Settings(bucket="acme", prefix="prod/xcom", read_uris=("gs://old/xcom", "file:///mnt/old/"))

    assert settings.allows(uri) is allowed


def test_error_survives_pickling() -> None:
    """Airflow hands errors from process to process."""
    with pytest.raises(SettingsError) as caught:
        Settings(bucket="")

    copy = pickle.loads(pickle.dumps(caught.value))

    assert str(copy) == str(caught.value)
    assert list(copy.problems) == ["bucket"]
    assert copy.uri is None


@pytest.fixture
def standalone_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The AIRFLOW_HOME that `astro dev start --standalone` sets, with no bucket named anywhere."""
    home = tmp_path / "my project" / ".astro" / "standalone"
    for name in ("AIRFLOW__GCS_XCOM__BUCKET", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(home))
    monkeypatch.setenv("ASTRONOMER_ENVIRONMENT", "local")
    monkeypatch.setattr("include.xcom.settings._bucket_variable", lambda: "")
    load_settings.cache_clear()
    return home


def test_standalone_mode_has_a_folder_without_any_setting(standalone_home: Path) -> None:
    """It is made when it is first needed, so a clone and a fresh start both work."""
    assert load_settings().bucket == (standalone_home / "xcoms").as_uri()
    assert (standalone_home / "xcoms").is_dir()
    assert [found.message.partition(":")[0] for found in examine_mode()] == ["astro dev start --standalone"]


def test_standalone_mode_takes_a_bucket_that_is_named(
    standalone_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a Variable in airflow_settings.yaml, which the containers' own one beats, or by a setting."""
    monkeypatch.setattr("include.xcom.settings._bucket_variable", lambda: "acme-of-mine")

    assert load_settings().bucket == "acme-of-mine"
    assert not standalone_home.exists()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        pytest.param("KUBERNETES_SERVICE_HOST", "10.0.0.1", id="kubernetes"),
        pytest.param("ASTRONOMER_ENVIRONMENT", "cloud", id="astro"),
        pytest.param("COMPOSER_ENVIRONMENT", "prod", id="composer"),
        pytest.param("K_SERVICE", "airflow", id="cloud-run"),
    ],
)
def test_standalone_folder_is_refused_in_a_deployment(
    variable: str, text: str, standalone_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is neither shared nor kept; the message says what to name instead."""
    monkeypatch.setenv(variable, text)

    with pytest.raises(SettingsError, match=rf"refused in a deployment \({variable} is set\)") as caught:
        load_settings()

    assert "allowed is the name of a GCS bucket, for example acme-xcom" in str(caught.value)
    assert not standalone_home.exists()


@pytest.mark.parametrize("home", ["airflow", ".astro", ".astro/standalone/airflow", "standalone"])
def test_no_other_home_has_a_default_folder(
    home: str, standalone_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The containers of `astro dev start` say ASTRONOMER_ENVIRONMENT=local too, and have a bucket."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / home))

    with pytest.raises(SettingsError, match="bucket is empty"):
        load_settings()
    assert list(tmp_path.rglob("xcoms")) == []


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        pytest.param({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes", id="kubernetes"),
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "ASTRONOMER_ENVIRONMENT": "cloud"},
            "an Astro Deployment",
            id="astro",
        ),
        pytest.param(
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "COMPOSER_ENVIRONMENT": "prod"},
            "Cloud Composer",
            id="composer",
        ),
        pytest.param({"ASTRONOMER_ENVIRONMENT": "local"}, "astro dev start: containers", id="astro-dev"),
    ],
)
def test_doctor_names_the_way_airflow_is_run(
    variables: dict[str, str], mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Composer, Astro and agents run in Kubernetes too; the narrower name is said."""
    for name in ("KUBERNETES_SERVICE_HOST", "ASTRONOMER_ENVIRONMENT", "COMPOSER_ENVIRONMENT", "K_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    for name, text in variables.items():
        monkeypatch.setenv(name, text)

    (found,) = examine_mode()

    assert found.level == "ok"
    assert found.message.startswith(mode)
