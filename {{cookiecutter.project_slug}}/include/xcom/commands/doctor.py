"""``doctor``: is everything here that the backend needs, and if not, what mends it?

Each check gives findings of one line: ``ok``, ``warning``, ``problem``, or ``skipped`` for what cannot
be known from here; a warning or problem ends with a fix that can be pasted. No check needs Airflow's
database or Docker, and none stops the others.

Two things have to be defined:

- *Production* is where Kubernetes, Astro, Cloud Composer or Cloud Run say so in the environment
  (KUBERNETES_SERVICE_HOST, ASTRONOMER_ENVIRONMENT but for ``local``, which is ``astro dev start``,
  COMPOSER_ENVIRONMENT, K_SERVICE), the executor is a Kubernetes one, or ``[api] base_url`` is https or
  names another host than this machine. An emulator of Cloud Storage there is a problem: it forgets
  what it is given. So is a directory as the bucket where the environment says so: it is the pod's own.
- A *prefix is shared* if another deployment has claimed it (see ``claim``), which is a problem, or if
  objects below it belong to Dags that this Airflow does not know. These may be of Dags that were
  deleted, so that is a warning. Two deployments with the same Dag ids, neither of which ever claimed
  the prefix, cannot be told apart: give each a bucket or prefix of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from .. import __version__ as OWN_VERSION
from .. import stores
from ..errors import PayloadError, SettingsError, StoreUnavailableError
from ..reference import PayloadReference, coordinates_of
from ..settings import BUCKET_VARIABLE, SECTION, Settings, load_settings, platform_variables
from .findings import Finding
from .mode import examine_mode
from .project import BACKEND, DATAFRAMES, REQUIREMENTS, examine_project

__all__ = ["examine"]

_DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "")
_FOLDERS_AT_MOST = 200
# Sooner, a rule that was made for something else deletes what Dag runs may still need.
_DAYS_AT_LEAST = 7
# Packages that do not fit together are what breaks a check.
_PIP_CHECK = "python -m pip check"
_GCLOUD_LOGIN = "gcloud auth application-default login"


def examine(project: Path, api_url: str | None = None, api_user: str | None = None) -> Iterator[Finding]:
    """Yield the findings, check by check; a check that breaks is a finding too.

    Args:
        project: Folder of the project, where a Dockerfile and requirements.txt may be.
        api_url: Of Airflow's API; see ``api.Login.find``.
        api_user: Of Airflow's API.
    """
    if importlib.util.find_spec("airflow") is None:
        yield Finding(
            "problem",
            "airflow",
            f"is not in {sys.executable}, so only the project's files are looked at",
            "docker compose exec scheduler python -m include.xcom doctor",
        )
        yield from _guarded("project", lambda: examine_project(project))
        return
    settings: list[Settings] = []
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("airflow", _airflow),
        ("mode", examine_mode),
        ("backend", lambda: _backend(project)),
        ("packages", _packages),
        ("project", lambda: examine_project(project)),
        ("settings", lambda: _settings(settings)),
    ]
    for name, check in checks:
        yield from _guarded(name, check)
    if not settings:
        yield Finding("skipped", "store", "cannot be looked at before the settings are right")
        return
    found = settings[0]
    yield from _guarded("executor", lambda: _executor(found))
    if not found.bucket.startswith("file://"):
        yield from _guarded("emulator", _emulator)
        yield from _guarded("credentials", lambda: _credentials(found))
        yield from _guarded("bucket", lambda: _bucket(found))
    yield from _guarded("access", _access)
    yield from _guarded("prefix", lambda: _prefix(found, api_url, api_user))


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except PayloadError as error:
        yield Finding("problem", name, str(error), _PIP_CHECK)
    except Exception as error:  # A doctor that breaks down tells nobody anything.
        yield Finding("problem", name, f"could not be checked: {type(error).__name__}: {error}", _PIP_CHECK)


def _airflow() -> Iterator[Finding]:
    from airflow import __version__
    from packaging.version import Version

    version = Version(__version__)
    if version < Version("3.0"):
        yield Finding("problem", "airflow", f"{version} is too old", "pip install 'apache-airflow>=3.0,<3.5'")
    elif version >= Version("3.5.dev0"):
        yield Finding(
            "warning",
            "airflow",
            f"{version} is newer than what was tested (3.0 to 3.4)",
            "python -m pytest",
        )
    else:
        yield Finding("ok", "airflow", f"{version}, Python {sys.version.split()[0]}, backend {OWN_VERSION}")


def _backend(project: Path) -> Iterator[Finding]:
    from airflow.configuration import conf

    setting = conf.get("core", "xcom_backend", fallback="") or ""
    if not setting.endswith("GCPBucketXComBackend"):
        yield Finding(
            "problem",
            "backend",
            f"[core] xcom_backend is {setting or 'not set'}, so XComs stay in the database",
            f"export AIRFLOW__CORE__XCOM_BACKEND={BACKEND}",
        )
        setting = BACKEND
    # As Airflow does it: in a process of its own, which does not stand in the project's folder.
    code = (
        "from airflow import settings; settings.prepare_syspath_for_config_and_plugins(); "
        "from airflow.sdk.execution_time.xcom import XCom; print('\\n' + XCom.__module__ + '.' + XCom.__qualname__)"
    )
    environment = {**os.environ, "AIRFLOW__CORE__XCOM_BACKEND": setting}
    if "airflow-db-not-allowed" in environment.get(_DATABASE, ""):
        # In a task: Airflow leaves an address there with which no other process of it starts.
        environment[_DATABASE] = "sqlite://"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    loaded = done.stdout.strip().rpartition("\n")[2]
    if done.returncode == 0 and loaded.endswith(".GCPBucketXComBackend"):
        yield Finding("ok", "import", f"Airflow loads {loaded}")
        return
    lines = done.stderr.strip().splitlines() or [f"it loaded {loaded}"]
    said = next((line for line in lines if re.match(r"(ModuleNotFound|Import|Syntax)Error", line)), lines[-1])
    yield Finding(
        "problem",
        "import",
        f"a process of Airflow cannot load {setting}: {said}",
        f"export PYTHONPATH={shlex.quote(str(project.resolve()))}",
    )


def _packages() -> Iterator[Finding]:
    from packaging.version import Version

    wrong = []
    found = []
    for name, least in REQUIREMENTS.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name not in DATAFRAMES:
                wrong.append((name, least, "is not installed"))
            continue
        if Version(version) < Version(least):
            wrong.append((name, least, f"is {version}, and {least} is the oldest that was tested"))
        else:
            found.append(f"{name} {version}")
    for name, least, what in wrong:
        yield Finding("problem", "packages", f"{name} {what}", f"pip install '{name}>={least}'")
    if not wrong:
        yield Finding("ok", "packages", ", ".join(found))


def _settings(found: list[Settings]) -> Iterator[Finding]:
    load_settings.cache_clear()
    try:
        settings = load_settings()
    except PayloadError as error:
        problems = error.problems if isinstance(error, SettingsError) else {}
        yield Finding("problem", "settings", str(error), _corrected(sorted(problems)))
        return
    except Exception as error:
        # Without a setting the Variable is asked for, and without a database there is none to answer.
        yield Finding(
            "problem",
            "settings",
            f"the Variable {BUCKET_VARIABLE} could not be read: {type(error).__name__}: {error}"[:300],
            _corrected(["bucket"]),
        )
        return
    found.append(settings)
    yield Finding(
        "ok", "settings", f"payloads lie below {settings.root}, values over {settings.threshold_bytes} bytes"
    )


def _corrected(names: list[str]) -> str:
    """Return what sets settings to their defaults, and the bucket where its name is looked for."""
    from airflow.configuration import conf

    defaults = {field.name: field.default for field in fields(Settings)}
    words = []
    for name in names:
        value = defaults[name]
        text = "" if value == () else str(value).lower() if isinstance(value, bool) else str(value)
        if name != "bucket":
            words.append(_variable(name, text))
        elif conf.get(SECTION, "bucket", fallback=""):
            words.append(_variable(name, "acme-xcom"))
        else:
            words.append(f"AIRFLOW_VAR_{BUCKET_VARIABLE}=acme-xcom")
    return f"export {' '.join(words)}" if words else ""


def _variable(name: str, value: str) -> str:
    return f"AIRFLOW__{SECTION.upper()}__{name.upper()}={shlex.quote(value) if value else ''}"


def _executor(settings: Settings) -> Iterator[Finding]:
    executor = _executor_name()
    platforms = platform_variables()
    if not settings.bucket.startswith("file://"):
        yield Finding("ok", "executor", executor)
    elif not stores.runs_here(executor):
        yield Finding(
            "problem",
            "executor",
            f"{executor} runs tasks on other machines, and {settings.bucket} is a directory of this one",
            f"export {_variable('bucket', 'acme-xcom')}",
        )
    elif platforms:
        yield Finding(
            "problem",
            "executor",
            f"{settings.bucket} is a directory of this container alone, and gone with it "
            f"({', '.join(platforms)} is set)",
            f"export {_variable('bucket', 'acme-xcom')}",
        )
    else:
        yield Finding("ok", "executor", f"{executor}, and the store is a directory of this machine")


def _executor_name() -> str:
    from airflow.configuration import conf

    return conf.get("core", "executor", fallback="LocalExecutor") or ""


def _emulator() -> Iterator[Finding]:
    host = os.environ.get("STORAGE_EMULATOR_HOST", "")
    if not host:
        yield Finding(
            "ok", "emulator", "STORAGE_EMULATOR_HOST is not set: this is Google Cloud Storage itself"
        )
        return
    signs = _production_signs()
    if signs:
        yield Finding(
            "problem",
            "emulator",
            f"STORAGE_EMULATOR_HOST is {host}, and this looks like production ({', '.join(signs)})",
            "unset STORAGE_EMULATOR_HOST",
        )
    else:
        yield Finding("ok", "emulator", f"payloads go to the emulator at {host} (development)")


def _production_signs() -> list[str]:
    from airflow.configuration import conf

    signs = platform_variables()
    if "Kubernetes" in _executor_name():
        signs.append(_executor_name())
    url = conf.get("api", "base_url", fallback="") or ""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.hostname or "") not in _LOCAL_HOSTS:
        signs.append(f"[api] base_url = {url}")
    return signs


def _credentials(settings: Settings) -> Iterator[Finding]:
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        yield Finding("ok", "credentials", "none are sent to an emulator")
        return
    from ..stores import credentials, transport
    from ..stores.bucket import ENDPOINT

    pool = transport.open_pool(ENDPOINT, 1)
    fix = _GCLOUD_LOGIN
    try:
        fields = credentials.connection_fields(settings.conn_id)
        fields.pop("num_retries", None)
        kind = _kind(fields)
        if kind not in ("Application Default Credentials", "none (anonymous)"):
            fix = f"airflow connections get {shlex.quote(settings.conn_id)} -o json"
        with transport.time_limit(30):
            token = credentials.Tokens(pool, settings.conn_id).authorize("GET", ENDPOINT, {})
    except Exception as error:
        yield Finding("problem", "credentials", f"{type(error).__name__}: {error}"[:500], fix)
        return
    connection = f"connection {settings.conn_id}" if fields else f"no key in connection {settings.conn_id}"
    if token:
        yield Finding("ok", "credentials", f"{kind} ({connection})")
        return
    variable = f"AIRFLOW_CONN_{settings.conn_id.upper()}"
    delete = f"airflow connections delete {shlex.quote(settings.conn_id)}"
    yield Finding(
        "warning",
        "credentials",
        f"{kind} ({connection})",
        f"unset {variable}" if variable in os.environ else delete,
    )


def _kind(fields: dict[str, Any]) -> str:
    if str(fields.get("is_anonymous", "")).lower() in ("true", "1", "yes", "on"):
        return "none (anonymous)"
    if fields.get("impersonation_chain"):
        return "impersonation, by the Google provider"
    for name, words in (
        ("key_path", "key file of a service account"),
        ("keyfile_dict", "key of a service account in the connection"),
        ("key_secret_name", "key in Secret Manager, by the Google provider"),
        ("credential_config_file", "credential configuration, by the Google provider"),
    ):
        if fields.get(name):
            return words
    return "Application Default Credentials"


def _bucket(settings: Settings) -> Iterator[Finding]:
    from .lifecycle import Bucket

    name = f"gs://{settings.bucket}"
    try:
        found = Bucket(settings).read()
    except PayloadError as error:
        if isinstance(error, StoreUnavailableError) and error.status == 403:
            yield Finding("skipped", "bucket", f"{name}: its settings may not be read with these credentials")
        else:
            yield Finding("problem", "bucket", str(error), _reach(settings, error))
        return
    yield Finding("ok", "bucket", f"{name} exists, in {found.get('location', 'an unknown place')}")
    update = f"gcloud storage buckets update {name}"
    yield _lifecycle(settings, found.get("lifecycle", {}).get("rule", []))
    seconds = int(found.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0))
    if seconds:
        yield Finding(
            "warning",
            "soft delete",
            f"deleted payloads are kept, and paid for, {seconds // 86_400} more days",
            f"{update} --clear-soft-delete",
        )
    else:
        yield Finding("ok", "soft delete", "off")
    if found.get("versioning", {}).get("enabled"):
        yield Finding(
            "warning",
            "versioning",
            "deleted payloads stay as noncurrent versions",
            f"{update} --no-versioning",
        )
    else:
        yield Finding("ok", "versioning", "off")
    access = found.get("iamConfiguration", {})
    is_emulator = bool(os.environ.get("STORAGE_EMULATOR_HOST"))
    if access.get("publicAccessPrevention") == "enforced":
        yield Finding("ok", "public access", "is prevented")
    elif is_emulator:
        yield Finding("skipped", "public access", "an emulator has no access control")
    else:
        yield Finding(
            "warning",
            "public access",
            "nothing prevents that the bucket is made public",
            f"{update} --public-access-prevention",
        )
    if access.get("uniformBucketLevelAccess", {}).get("enabled"):
        yield Finding("ok", "uniform access", "on: only IAM decides")
    elif not is_emulator:
        yield Finding(
            "warning",
            "uniform access",
            "objects may have access lists of their own",
            f"{update} --uniform-bucket-level-access",
        )


def _lifecycle(settings: Settings, rules: list[dict[str, Any]]) -> Finding:
    """Tell when payloads are deleted, by the rule of this prefix or by any other."""
    from .lifecycle import age_of, covers_all, is_ours

    ages = [age for rule in rules if (age := age_of(rule, settings.prefix)) is not None]
    ours = [rule["condition"]["age"] for rule in rules if is_ours(rule, settings.prefix)]
    if ages and min(ages) < min(ours, default=_DAYS_AT_LEAST):
        wanted = f"that of this prefix has {min(ours)}" if ours else "Dag runs may still need them"
        return Finding(
            "warning",
            "lifecycle",
            f"another rule of the bucket deletes payloads at an age of {min(ages)} days; {wanted}",
            "python -m include.xcom lifecycle show",
        )
    if any(covers_all(rule, settings.prefix) for rule in rules):
        return Finding("ok", "lifecycle", f"payloads are deleted at an age of {min(ages)} days")
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return Finding("skipped", "lifecycle", "an emulator deletes nothing by age")
    return Finding(
        "warning",
        "lifecycle",
        f"no rule deletes {'all ' if ages else ''}old objects below {settings.root}",
        "python -m include.xcom lifecycle set --age-days 90",
    )


def _reach(settings: Settings, error: PayloadError) -> str:
    """Return what to do where a bucket cannot be used; its name and the account are filled in if known."""
    bucket = settings.bucket
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    host = emulator if "://" in emulator else f"http://{emulator}" if emulator else ""
    if bucket.startswith("file://"):
        path = shlex.quote(unquote(urlsplit(bucket).path))
        return f"mkdir -p {path} && chmod u+rwx {path}"
    if isinstance(error, StoreUnavailableError) and error.conn_id:
        return _GCLOUD_LOGIN
    status = error.status if isinstance(error, StoreUnavailableError) else None
    if status == 404 and host:
        body = shlex.quote(json.dumps({"name": bucket}))
        return (
            f"curl --fail -H 'content-type: application/json' -d {body} {shlex.quote(f'{host}/storage/v1/b')}"
        )
    if status == 404:
        # As the next doctor wants it. In the region of the workers: another one costs money and time.
        return (
            f"gcloud storage buckets create gs://{bucket} "
            '--location="${REGION:-us-central1}" '
            "--uniform-bucket-level-access --public-access-prevention --soft-delete-duration=0"
        )
    if status in (401, 403):
        return (
            f"gcloud storage buckets add-iam-policy-binding gs://{bucket} "
            f"--role=roles/storage.objectUser --member={_account()}"
        )
    from ..stores.bucket import ENDPOINT

    return f"curl --verbose --max-time 10 {shlex.quote(f'{host or ENDPOINT}/storage/v1/b/{bucket}')}"


def _account() -> str:
    """Return the account of the tasks as a member of a policy; where it is not known, the shell asks for it."""
    with suppress(PayloadError):
        store = _store()
        if account := getattr(store, "account", ""):
            return shlex.quote(f"serviceAccount:{account}")
    return '"serviceAccount:${ACCOUNT:?set it to the e-mail of the service account that runs the tasks}"'


def _store() -> stores.Store:
    """Return the deployment's own store, which gives up sooner than it does for a task."""
    settings = load_settings()
    quick = replace(settings, timeout_seconds=min(settings.timeout_seconds, 30))
    return stores._store(quick, quick.bucket)


def _access() -> Iterator[Finding]:
    """Create, list, read and delete one object below the prefix."""
    settings = load_settings()
    folder = "/".join(part for part in (settings.prefix, "doctor") if part)
    name = f"{folder}/{uuid4().hex}.bin"
    look = (
        f"ls -la {shlex.quote(unquote(urlsplit(settings.root).path))}"
        if settings.bucket.startswith("file://")
        else f"gcloud storage ls --all-versions gs://{settings.bucket}/{folder}/"
    )
    body = b"doctor"
    done = []
    store = None
    stored = None
    wrong = ""
    fix = look
    step = "create"
    try:
        store = _store()
        stored = store.put(name, [body])
        done.append(step)
        step = "list"
        if any(one.name == name for page in store.list(f"{folder}/", name) for one in page):
            done.append(step)
        else:
            wrong = f"{stored.uri} was written, and is not listed"
        step = "read"
        reference = PayloadReference(
            stored.uri, "bytes", stored.size, stored.size, "bytes", 1, stored.crc32c, stored.generation
        )
        if bytes(store.get(reference)) == body:
            done.append(step)
        else:
            wrong = wrong or f"{stored.uri} was written, and other bytes came back"
    except PayloadError as error:
        wrong = wrong or f"cannot {step} objects: {error}"
        fix = _reach(settings, error)
    if store is not None and stored is not None:
        try:
            if store.delete(stored.uri, stored.generation):
                done.append("delete")
            else:
                wrong = wrong or f"{stored.uri} was written, and was gone before it was deleted"
        except PayloadError as error:
            wrong, fix = (
                (wrong, fix) if wrong else (f"cannot delete objects: {error}", _reach(settings, error))
            )
    if wrong:
        yield Finding("problem", "access", wrong, fix)
    else:
        yield Finding("ok", "access", f"can {', '.join(done)} objects below {settings.root}")


def _prefix(settings: Settings, api_url: str | None, api_user: str | None) -> Iterator[Finding]:
    from .api import AirflowAPI, AirflowAPIError, Login
    from .claim import ClaimError, Claims

    prefix = f"{settings.prefix}/" if settings.prefix else ""
    own_prefix = f"export {_variable('prefix', 'xcom-of-this-deployment')}"
    try:
        folders = list(islice(_first_of_each_folder(_store(), prefix), _FOLDERS_AT_MOST + 1))
    except PayloadError:
        # The access that was tried before has the reason.
        yield Finding("skipped", "prefix", f"{settings.root} cannot be listed")
        return
    dags = [where.dag_id for uri in folders[:_FOLDERS_AT_MOST] if (where := coordinates_of(uri)) is not None]
    more = f"; of more than {_FOLDERS_AT_MOST} folders the first were looked at" * (
        len(folders) > _FOLDERS_AT_MOST
    )
    if not dags:
        yield Finding("ok", "prefix", f"no payloads of any Dag yet{more}")
        return
    try:
        api = AirflowAPI(Login.find(api_url, api_user))
        Claims(_store(), api, settings.root, prefix).refuse_others()
        unknown = [dag_id for dag_id in dags if not api.knows_dag(dag_id)]
    except ClaimError as error:
        yield Finding("problem", "prefix", str(error), own_prefix)
        return
    except AirflowAPIError as error:
        yield Finding("skipped", "prefix", f"whether another deployment uses it is not known: {error}")
        return
    if unknown:
        shown = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        yield Finding(
            "warning",
            "prefix",
            f"{settings.root} has payloads of Dags that this Airflow does not know ({shown}): they were deleted, "
            f"or another deployment uses this prefix{more}",
            own_prefix,
        )
    else:
        yield Finding(
            "ok", "prefix", f"payloads of {len(dags)} Dags, all of them known to this Airflow{more}"
        )


def _first_of_each_folder(store: stores.Store, prefix: str) -> Iterator[str]:
    """Yield the URI of one object of each folder below the prefix, at one list request for each."""
    start = ""
    while first := next(iter(next(store.list(prefix, start), [])), None):
        yield first.uri
        folder = first.name.removeprefix(prefix).partition("/")[0]
        start = f"{prefix}{folder}0"  # "0" comes right behind "/": the next page begins behind the folder.
