"""The settings of section ``[gcs_xcom]``, read once from Airflow's own configuration.

Every setting can stand in ``airflow.cfg``, in an environment variable
``AIRFLOW__GCS_XCOM__<NAME>``, or in the configuration overrides of a managed Airflow. The bucket
can also be named by the Airflow Variable ``XCOM_BACKEND_DATA_GCS_NAME``, so that deployments that
share a configuration can each have their own. Only ``astro dev start --standalone`` needs neither:
it has no emulator, so payloads go to a folder in its AIRFLOW_HOME.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .errors import SettingsError

__all__ = [
    "BUCKET_VARIABLE",
    "SECTION",
    "Settings",
    "is_standalone",
    "is_viewer_enabled",
    "load_settings",
    "platform_variables",
]

SECTION = "gcs_xcom"
BUCKET_VARIABLE = "XCOM_BACKEND_DATA_GCS_NAME"

_KIB = 1024
# https://cloud.google.com/storage/docs/buckets#naming: 3 to 63 characters between dots, 222 in all.
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
# A narrow choice: such a prefix reads the same in a URI, a shell, a path and an IAM condition.
_PREFIX_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+@~-]*")
_STANDALONE_HOME = (".astro", "standalone")
_PLATFORM_VARIABLES = (
    "KUBERNETES_SERVICE_HOST",
    "ASTRONOMER_ENVIRONMENT",
    "COMPOSER_ENVIRONMENT",
    "K_SERVICE",
)
_SEPARATORS = re.compile(r"[,\s]+")


@dataclass(frozen=True)
class Settings:
    """What a deployment has decided; immutable.

    Attributes:
        bucket: Name of the GCS bucket, or ``file:///absolute/path`` of a local directory.
        prefix: Of every object name, without slashes at its ends; may be empty.
        conn_id: Airflow connection that holds the credentials. If there is none of that id,
            Application Default Credentials serve.
        threshold_bytes: JSON up to this many bytes stays in the database row.
        max_payload_bytes: Larger payloads are neither written nor read; holds for the encoded bytes
            and for what they expand to.
        max_file_bytes: The same for what is not loaded into memory: each ``File``, ``Table``, and
            ``Items``. Cloud Storage takes no object over 5 TiB.
        temporary_directory: Where tasks keep downloaded files while they run; empty for the
            system's (``TMPDIR``, else ``/tmp``). Must be an absolute path.
        concurrency: Payloads in flight at once when many are loaded.
        timeout_seconds: For one request to the store, with its retries and waits: a store or load, or
            one part of a large one.
        frame_format: ``parquet`` (every tool reads it) or ``arrow`` (several times faster).
        inexact: What happens to a value of which some part has no exact form: ``warn`` stores the
            part as Airflow's default backend would and logs a warning, ``refuse`` fails the task.
        legacy_references: Follow the strings that earlier backends wrote: ``gcs://`` ones of 2023, and
            paths of Airflow's object storage backend below a place in ``read_uris``.
        read_uris: More places that references may point to, as ``gs://bucket/prefix/`` or
            ``file:///path/``; never written to.
        viewer: Add the pages "Payloads" to Airflow's UI. Takes effect when the API server starts.
    """

    bucket: str
    prefix: str = "xcom"
    conn_id: str = "google_cloud_storage_default"
    threshold_bytes: int = 48 * _KIB
    max_payload_bytes: int = _KIB**3
    max_file_bytes: int = _KIB**4
    temporary_directory: str = ""
    concurrency: int = 16
    timeout_seconds: float = 120.0
    frame_format: str = "parquet"
    inexact: str = "warn"
    legacy_references: bool = False
    read_uris: tuple[str, ...] = ()
    viewer: bool = True

    def __post_init__(self) -> None:
        """Refuse values that cannot work, all of them in one error.

        Raises:
            SettingsError: Its attribute ``problems`` lists them.
        """
        if problems := dict(_problems(self)):
            raise _settings_error(problems)

    @property
    def root(self) -> str:
        """URI below which this deployment writes, with a slash at its end."""
        base = self.bucket.rstrip("/") if self.bucket.startswith("file://") else f"gs://{self.bucket}"
        return f"{base}/{self.prefix}/" if self.prefix else f"{base}/"

    def allows(self, uri: str) -> bool:
        """Tell whether a reference to ``uri`` may be followed."""
        return any(_is_below(uri, root) for root in (self.root, *self.read_uris))


@cache
def load_settings() -> Settings:
    """Read and check the settings; one read for the life of the process.

    Tests call ``load_settings.cache_clear()``.

    Raises:
        SettingsError: A value is missing or malformed. The message names each setting, its value,
            where the value comes from, and what is allowed.
    """
    values, problems = _configured(*_PARSERS)
    if "bucket" not in values:
        try:
            values["bucket"] = _bucket_variable() or _standalone_folder()
        except ValueError as error:
            values["bucket"] = ""
            problems["bucket"] = str(error)
    # A placeholder keeps the other settings checked too: all problems are named at once.
    try:
        settings = Settings(**values)
    except SettingsError as error:
        problems = {**error.problems, **problems}
    if problems:
        raise _settings_error(problems)
    return settings


def is_viewer_enabled() -> bool:
    """Return the setting ``viewer`` without reading the others: a component that has no bucket may ask.

    Raises:
        SettingsError: The value is neither true nor false.
    """
    values, problems = _configured("viewer")
    if problems:
        raise _settings_error(problems)
    return bool(values.get("viewer", Settings.viewer))


def _configured(*names: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of the settings that are set, and what is wrong with the others."""
    from airflow.configuration import conf

    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name in names:
        text = conf.get(SECTION, name, fallback="")
        text = text.strip() if text else ""
        if not text:
            continue
        try:
            values[name] = _PARSERS[name](text)
        except ValueError as error:
            problems[name] = f"is {text!r}; {error}"
    return values, problems


def _bucket_variable() -> str:
    from airflow.sdk import Variable

    try:
        text = Variable.get(BUCKET_VARIABLE, default="")
    except ImportError:
        # Airflow 3.0 outside of a task: nobody there to ask. Drop when Airflow >= 3.1.
        from airflow.models import Variable as StoredVariable

        text = StoredVariable.get(BUCKET_VARIABLE, default_var="")
    return str(text or "").strip()


def is_standalone() -> bool:
    """Return whether this is ``astro dev start --standalone``: Airflow on the host, without containers."""
    return Path(os.environ.get("AIRFLOW_HOME", "")).parts[-2:] == _STANDALONE_HOME


def platform_variables() -> list[str]:
    """Return the environment variables by which a platform says that this is one of its containers."""
    # The Astro CLI sets ASTRONOMER_ENVIRONMENT=local on a developer's machine.
    return [name for name in _PLATFORM_VARIABLES if os.environ.get(name) not in (None, "", "local")]


def _standalone_folder() -> str:
    """Return the URI of standalone mode's own folder, made when first needed; ``""`` in any other mode.

    Raises:
        ValueError: This looks like a deployment, whose disk is neither shared nor kept.
    """
    if not is_standalone():
        return ""
    folder = Path(os.environ["AIRFLOW_HOME"]) / "xcoms"
    if found := platform_variables():
        raise ValueError(
            f"is empty, and {folder}, where `astro dev start --standalone` keeps payloads, is refused in a "
            f"deployment ({', '.join(found)} is set); allowed is the name of a GCS bucket, for example acme-xcom"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder.as_uri()


def _whole_number(text: str) -> int:
    # int() would take "1_000" and Arabic digits too: what one person writes, another must read.
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError("allowed is a whole number, for example 49152")
    return int(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError("allowed is a number of seconds, for example 120")
    return float(text)


_SWITCH = dict.fromkeys(("true", "1", "on", "yes"), True) | dict.fromkeys(("false", "0", "off", "no"), False)


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise ValueError("allowed are true and false")
    return _SWITCH[text.lower()]


def _list(text: str) -> tuple[str, ...]:
    return tuple(item for item in _SEPARATORS.split(text) if item)


def _bucket(text: str) -> str:
    return text if text.startswith("file://") else text.removeprefix("gs://").rstrip("/")


_BY_TYPE: dict[object, Callable[[str], Any]] = {
    "str": str,
    "int": _whole_number,
    "float": _seconds,
    "bool": _switch,
    "tuple[str, ...]": _list,
}
_PARSERS = {field.name: _BY_TYPE[field.type] for field in fields(Settings)} | {
    "bucket": _bucket,
    "prefix": lambda text: text.strip("/"),
    "frame_format": str.lower,
    "inexact": str.lower,
}


def _problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the names of settings that cannot work, and what is wrong with them."""
    bucket, prefix, folder = settings.bucket, settings.prefix, settings.temporary_directory
    if not bucket:
        yield (
            "bucket",
            (
                f"is empty, and there is no Airflow Variable {BUCKET_VARIABLE}; allowed is the name of a GCS bucket, "
                "for example acme-xcom, or file:///absolute/path for one machine"
            ),
        )
    elif bucket.startswith("file:"):
        if not Path(_path_of(bucket)).is_absolute():
            yield "bucket", f"is {bucket!r}; a directory needs three slashes: file:///absolute/path"
    elif not _is_bucket_name(bucket):
        yield (
            "bucket",
            (
                f"is {bucket!r}; allowed are 3 to 63 lower-case letters, digits, '-', '_' and '.', with a letter or "
                "digit at both ends, for example acme-xcom"
            ),
        )
    if len(prefix) > 200 or not all(_PREFIX_PART.fullmatch(part) for part in prefix.split("/") if prefix):
        yield (
            "prefix",
            (
                f"is {prefix!r}; allowed are at most 200 letters, digits and any of . _ = + @ ~ -, in parts between "
                "slashes that begin with a letter or digit, for example xcom or prod/xcom"
            ),
        )
    if folder and not Path(folder).is_absolute():
        yield "temporary_directory", f"is {folder!r}; allowed is an absolute path, for example /mnt/scratch"
    if not settings.conn_id:
        yield "conn_id", "is empty; allowed is the id of an Airflow connection"
    for name, (least, most) in _RANGES.items():
        value = getattr(settings, name)
        if not least <= value <= most:
            yield name, f"is {value}; allowed is {least} to {most}"
    for name, words in _CHOICES.items():
        if getattr(settings, name) not in words:
            yield name, f"is {getattr(settings, name)!r}; allowed are {' and '.join(words)}"
    for uri in settings.read_uris:
        is_gcs = uri.startswith("gs://") and _is_bucket_name(urlsplit(uri).netloc)
        if not (is_gcs or Path(_path_of(uri)).is_absolute()):
            yield (
                "read_uris",
                f"has {uri!r}; allowed are gs://bucket/prefix/ and file:///path/, with commas between",
            )


_RANGES = {
    "threshold_bytes": (0, 16 * _KIB**2),
    "max_payload_bytes": (1, 5 * _KIB**4),
    "max_file_bytes": (1, 5 * _KIB**4),
    "concurrency": (1, 256),
    "timeout_seconds": (1, 86_400),
}
_CHOICES = {"frame_format": ("parquet", "arrow"), "inexact": ("warn", "refuse")}


def _is_bucket_name(text: str) -> bool:
    return bool(_BUCKET_NAME.fullmatch(text)) and all(1 <= len(part) <= 63 for part in text.split("."))


def _path_of(uri: str) -> str:
    """Path of ``file:///path``; empty when it is not such a URI."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" and not parts.netloc else ""


def _is_below(uri: str, root: str) -> bool:
    """Whether ``uri`` names something inside ``root``, compared as text: URIs are never normalised."""
    root = root if root.endswith("/") else f"{root}/"
    rest = uri[len(root) :]
    return uri.startswith(root) and bool(rest) and not {".", "..", ""} & set(rest.split("/"))


def _settings_error(problems: Mapping[str, str]) -> SettingsError:
    lines = [f"[{SECTION}] {name} {problem}{_origin(name)}" for name, problem in problems.items()]
    return SettingsError(
        "The XCom backend is not configured: " + ". ".join(lines) + ". Nothing was stored or read. "
        "Correct the value and start the task again.",
        problems=problems,
    )


def _origin(name: str) -> str:
    variable = f"AIRFLOW__{SECTION.upper()}__{name.upper()}"
    return f" (from {variable})" if variable in os.environ else f" (set {variable} or airflow.cfg)"
