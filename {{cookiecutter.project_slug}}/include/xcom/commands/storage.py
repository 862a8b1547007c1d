"""Checks of the doctor: emulator, credentials, the bucket's own settings, access, and who uses the prefix.

Two things have to be defined:

- *Production* is where Kubernetes, Astro, Cloud Composer, or Cloud Run say so in the environment (see
  ``settings.platform_variables``), the executor is a Kubernetes one, or ``[api] base_url`` is https or
  names another host than this machine. An emulator there is a problem: it forgets what it is given.
- A *prefix is shared* if another deployment has claimed it (see ``claim``), which is a problem, or if
  objects below it belong to Dags that this Airflow does not know. These may be deleted Dags, so that is a
  warning. Two deployments with the same Dag ids, neither of which ever claimed the prefix, cannot be told
  apart: give each its own bucket or prefix.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from airflow.configuration import conf

from ..errors import PayloadError, ReferenceNotAllowedError, StoreUnavailableError, shortened
from ..reference import PayloadReference, coordinates_of
from ..settings import Settings, platform_variables
from ..stores import Store, own_store
from ..stores import bucket as bucket_store
from ..units import format_count
from .api import MISSING, AirflowAPI, AirflowAPIError, Login
from .claim import ClaimError, Claims
from .deployment import executor_name, export_of
from .findings import Finding
from .lifecycle import Rule, age_of, covers_all, is_ours, open_bucket

__all__ = ["checks"]

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "")
_FOLDERS_AT_MOST = 200
# Sooner, a rule that was made for something else deletes what Dag runs may still need.
_DAYS_AT_LEAST = 7
_DAGS_AT_MOST = 20
_GCLOUD_LOGIN = "gcloud auth application-default login"


def checks(
    settings: Settings, api_url: str | None, api_user: str | None
) -> list[tuple[str, Callable[[], Iterable[Finding]]]]:
    """Return the checks of the store that the settings name."""
    before: list[tuple[str, Callable[[], Iterable[Finding]]]] = []
    if is_bucket := not settings.bucket.startswith("file://"):
        before += [("emulator", examine_emulator), ("credentials", lambda: examine_credentials(settings))]
    try:
        # One store for all checks, so that its account is known once it has sent a request.
        store = open_bucket(settings) if is_bucket else own_store()
    except PayloadError as error:
        found = Finding("problem", "access", str(error), _reach(settings, error, None))
        return [*before, ("access", lambda: [found])]
    return [
        *before,
        *([("bucket", lambda: examine_bucket(settings, store))] if is_bucket else []),
        ("access", lambda: examine_access(settings, store)),
        ("prefix", lambda: examine_prefix(settings, store, api_url, api_user)),
    ]


def _is_emulator() -> bool:
    return bool(os.environ.get("STORAGE_EMULATOR_HOST"))


def examine_emulator() -> Iterator[Finding]:
    """Tell whether payloads go to an emulator, and whether that is a mistake."""
    host = os.environ.get("STORAGE_EMULATOR_HOST", "")
    signs = _production_signs()
    if not host:
        message = "STORAGE_EMULATOR_HOST is not set: payloads go to Google Cloud Storage"
        yield Finding("ok", "emulator", message)
    elif signs:
        message = f"STORAGE_EMULATOR_HOST is {host}, and this looks like production ({', '.join(signs)})"
        yield Finding("problem", "emulator", message, "unset STORAGE_EMULATOR_HOST")
    else:
        yield Finding("ok", "emulator", f"payloads go to the emulator at {host} (development)")


def _production_signs() -> list[str]:
    signs = platform_variables()
    if "Kubernetes" in executor_name():
        signs.append(executor_name())
    url = conf.get("api", "base_url", fallback="") or ""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.hostname or "") not in _LOCAL_HOSTS:
        signs.append(f"[api] base_url = {url}")
    return signs


def examine_credentials(settings: Settings) -> Iterator[Finding]:
    """Fetch a token, and tell where it comes from."""
    if _is_emulator():
        yield Finding("ok", "credentials", "none are sent to an emulator")
        return
    from ..stores import credentials, transport

    fix = _GCLOUD_LOGIN
    try:
        fields = credentials.connection_fields(settings.conn_id)
        fields.pop("num_retries", None)
        kind = _kind(fields)
        if kind not in ("Application Default Credentials", "none (anonymous)"):
            fix = f"airflow connections get {shlex.quote(settings.conn_id)} -o json"
        tokens = credentials.Tokens(transport.open_pool(bucket_store.ENDPOINT, 1), settings.conn_id)
        with transport.time_limit(30):
            token = tokens.authorize("GET", bucket_store.ENDPOINT, {})
    except PayloadError as error:
        yield Finding("problem", "credentials", str(error), fix)
        return
    except Exception as error:  # noqa: BLE001 - Of google-auth, of the provider, and of what they call.
        yield Finding("problem", "credentials", shortened(f"{type(error).__name__}: {error}", 500), fix)
        return
    connection = f"connection {settings.conn_id}" if fields else f"no key in connection {settings.conn_id}"
    if token:
        yield Finding("ok", "credentials", f"{kind} ({connection})")
        return
    variable = f"AIRFLOW_CONN_{settings.conn_id.upper()}"
    delete = f"airflow connections delete {shlex.quote(settings.conn_id)}"
    fix = f"unset {variable}" if variable in os.environ else delete
    yield Finding("warning", "credentials", f"{kind} ({connection})", fix)


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


def examine_bucket(settings: Settings, store: Any) -> Iterator[Finding]:
    """Read the bucket's own settings: what they keep, delete, and show to others."""
    name = f"gs://{settings.bucket}"
    try:
        found = store.bucket_metadata()
    except StoreUnavailableError as error:
        if error.status == 403:
            message = f"{name}: these credentials may not read the bucket's settings"
            yield Finding("skipped", "bucket", message)
        elif error.conn_id:
            yield Finding("skipped", "bucket", f"{name}: cannot be read without credentials")
        else:
            yield Finding("problem", "bucket", str(error), _reach(settings, error, store))
        return
    yield Finding("ok", "bucket", f"{name} exists, in {found.get('location', 'an unknown place')}")
    yield _lifecycle(settings, found.get("lifecycle", {}).get("rule", []))
    update = f"gcloud storage buckets update {name}"
    seconds = int(found.get("softDeletePolicy", {}).get("retentionDurationSeconds", 0))
    message = f"deleted payloads are kept, and paid for, {seconds // 86_400} more days"
    yield _either(not seconds, "soft delete", "off", message, f"{update} --clear-soft-delete")
    is_versioned = found.get("versioning", {}).get("enabled", False)
    message = "deleted payloads remain as noncurrent versions"
    yield _either(not is_versioned, "versioning", "off", message, f"{update} --no-versioning")
    access = found.get("iamConfiguration", {})
    is_private = access.get("publicAccessPrevention") == "enforced"
    is_uniform = access.get("uniformBucketLevelAccess", {}).get("enabled", False)
    if _is_emulator() and not is_private:
        yield Finding("skipped", "public access", "an emulator has no access control")
        return
    message = "nothing prevents that the bucket is made public"
    yield _either(is_private, "public access", "prevented", message, f"{update} --public-access-prevention")
    fix = f"{update} --uniform-bucket-level-access"
    message = "objects may have their own access lists"
    yield _either(is_uniform, "uniform access", "on: only IAM decides", message, fix)


def _either(is_ok: bool, check: str, good: str, bad: str, fix: str) -> Finding:
    return Finding("ok", check, good) if is_ok else Finding("warning", check, bad, fix)


def _lifecycle(settings: Settings, rules: list[Rule]) -> Finding:
    """Tell when payloads are deleted, by the rule of this prefix or by any other."""
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
    if _is_emulator():
        return Finding("skipped", "lifecycle", "an emulator deletes nothing by age")
    message = f"no rule deletes {'all ' if ages else ''}old objects below {settings.root}"
    return Finding("warning", "lifecycle", message, "python -m include.xcom lifecycle set --age-days 90")


def _reach(settings: Settings, error: PayloadError, store: Any) -> str:
    """Return what makes a store usable; its name and the account are filled in if they are known."""
    bucket = settings.bucket
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    host = emulator if "://" in emulator else f"http://{emulator}" if emulator else ""
    if bucket.startswith("file://"):
        path = shlex.quote(unquote(urlsplit(bucket).path))
        return f"mkdir -p {path} && chmod u+rwx {path}"
    status = error.status if isinstance(error, StoreUnavailableError) else None
    if isinstance(error, StoreUnavailableError) and (error.conn_id or status == 401):
        return _GCLOUD_LOGIN
    if status == 404 and host:
        body, url = shlex.quote(json.dumps({"name": bucket})), shlex.quote(f"{host}/storage/v1/b")
        return f"curl --fail -H 'content-type: application/json' -d {body} {url}"
    if status == 404:
        # As the next doctor wants it. In the region of the workers: another one costs money and time.
        return (
            f"gcloud storage buckets create gs://{bucket} "
            '--location="${REGION:-us-central1}" '
            "--uniform-bucket-level-access --public-access-prevention --soft-delete-duration=0"
        )
    if status == 403 and isinstance(error, StoreUnavailableError) and not error.permission:
        return f"gcloud storage buckets describe gs://{bucket}"  # No role helps; the message says what does.
    if status == 403:
        return (
            f"gcloud storage buckets add-iam-policy-binding gs://{bucket} "
            f"--role=roles/storage.objectUser --member={_member(store)}"
        )
    return f"curl --verbose --max-time 10 {shlex.quote(f'{host or bucket_store.ENDPOINT}/storage/v1/b/{bucket}')}"


def _member(store: Any) -> str:
    """Return the account of the tasks for a policy; where it is not known, the shell asks for it."""
    if store is not None and store.account:
        return shlex.quote(f"serviceAccount:{store.account}")
    return '"serviceAccount:${ACCOUNT:?set it to the e-mail of the service account that runs the tasks}"'


def examine_access(settings: Settings, store: Store) -> Iterator[Finding]:
    """Create, list, read, and delete one object below the prefix."""
    folder = "/".join(part for part in (settings.prefix, "doctor") if part)
    name = f"{folder}/{uuid4().hex}.bin"
    look = (
        f"ls -la {shlex.quote(unquote(urlsplit(settings.root).path))}"
        if settings.bucket.startswith("file://")
        else f"gcloud storage ls --all-versions gs://{settings.bucket}/{folder}/"
    )
    done: list[str] = []
    try:
        wrong = _try_access(store, folder, name, done)
        fix = look
    except PayloadError as error:
        step = next(step for step in ("create", "list", "read", "delete") if step not in done)
        wrong, fix = f"cannot {step} objects: {error}", _reach(settings, error, store)
    if wrong:
        yield Finding("problem", "access", wrong, fix)
    else:
        yield Finding("ok", "access", f"can {', '.join(done)} objects below {settings.root}")


def _try_access(store: Store, folder: str, name: str, done: list[str]) -> str:
    """Return what is wrong though every request succeeded; note in ``done`` what worked."""
    body = b"doctor"
    stored = store.put(name, [body])
    done.append("create")
    wrong = ""
    try:
        if not any(one.name == name for page in store.list(f"{folder}/", name) for one in page):
            wrong = f"{stored.uri} was written, but is not listed"
        done.append("list")
        reference = PayloadReference(
            stored.uri, "bytes", stored.size, stored.size, "bytes", 1, stored.crc32c, stored.generation
        )
        if bytes(store.get(reference)) != body:
            wrong = wrong or f"{stored.uri} was written, but other bytes came back"
        done.append("read")
    except PayloadError:
        with suppress(PayloadError):  # The first error counts.
            store.delete(stored.uri, stored.generation)
        raise
    if not store.delete(stored.uri, stored.generation):
        wrong = wrong or f"{stored.uri} was written, but was gone before it was deleted"
    done.append("delete")
    return wrong


def examine_prefix(
    settings: Settings, store: Store, api_url: str | None, api_user: str | None
) -> Iterator[Finding]:
    """Tell whether another deployment uses the prefix."""
    prefix = f"{settings.prefix}/" if settings.prefix else ""
    own_prefix = f"export {export_of('prefix', 'xcom-of-this-deployment')}"
    try:
        folders = list(islice(store.list_folders(prefix), _FOLDERS_AT_MOST + 1))
        dags = [dag_id for folder in folders[:_FOLDERS_AT_MOST] if (dag_id := _dag_of(store, folder))]
    except PayloadError:
        # The check of access has the reason.
        yield Finding("skipped", "prefix", f"{settings.root} cannot be listed")
        return
    more = (
        f"; only the first {_FOLDERS_AT_MOST} folders were checked" if len(folders) > _FOLDERS_AT_MOST else ""
    )
    if not dags:
        yield Finding("ok", "prefix", f"no payloads of any Dag yet{more}")
        return
    try:
        api = AirflowAPI(Login.find(api_url, api_user))
        Claims(store, api, settings.root, prefix).refuse_others()
        unknown = [dag_id for dag_id in dags if not api.knows_dag(dag_id)]
    except ClaimError as error:
        yield Finding("problem", "prefix", str(error), own_prefix)
        return
    except AirflowAPIError as error:
        yield Finding("skipped", "prefix", f"cannot tell whether another deployment uses it: {error}")
        return
    if unknown:
        message = (
            f"{settings.root} has payloads of Dags that this Airflow does not know ({_some(unknown)}): they were "
            f"deleted, or another deployment uses this prefix{more}"
        )
        yield Finding("warning", "prefix", message, own_prefix)
    else:
        message = f"payloads of {format_count(len(dags), 'Dag')}, all known to this Airflow{more}"
        yield Finding("ok", "prefix", message)
    yield from _inexact(api, dags)


def _dag_of(store: Store, folder: str) -> str:
    """Return the Dag whose payloads a folder holds; empty if it holds something else."""
    first = next(iter(next(store.list(folder), [])), None)
    where = coordinates_of(first.uri) if first else None
    return where.dag_id if where else ""


def _inexact(api: AirflowAPI, dags: list[str]) -> Iterator[Finding]:
    """Tell which of the newest payloads come back inexact."""
    found: set[str] = set()
    asked = 0
    with suppress(AirflowAPIError, ReferenceNotAllowedError):  # Shown by other checks and commands.
        for dag_id in dags[:_DAGS_AT_MOST]:
            for xcom in api.list_rows(dag_id, limit=3, filters={"order_by": "-timestamp"}).rows:
                row = api.value(xcom)
                asked += 1
                reference = None if row is MISSING else PayloadReference.from_row(row)
                if reference is not None and reference.summary.get("inexact"):
                    found.add(f"{xcom.dag_id}.{xcom.task_id}")
    if found:
        message = (
            f"of the {asked} XComs checked, those of {_some(sorted(found))} come back inexact; the logs of "
            "their tasks say what changes"
        )
        yield Finding("warning", "inexact", message, f"export {export_of('inexact', 'refuse')}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
