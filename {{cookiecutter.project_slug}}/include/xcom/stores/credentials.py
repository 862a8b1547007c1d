"""Resolve Google Cloud credentials from the Airflow connection ``[gcs_xcom] conn_id``.

========================  =====================================================================
the connection            credentials
========================  =====================================================================
does not exist            Application Default Credentials
has no key                Application Default Credentials
``is_anonymous``          none
``key_path``              that service account's key file
``keyfile_dict``          that service account's key
anything else             from the Google provider's hook (impersonation, secrets)
========================  =====================================================================

``scope`` is honoured; ``num_retries`` and ``project`` are not used. The provider's hook is the last
resort because importing it takes about a second.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import urllib3

from ..errors import StoreUnavailableError
from .transport import TRANSIENT_STATUSES, Transient, reason, remaining, retry_after

__all__ = ["Tokens", "connection_fields"]

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_OLD_PREFIX = "extra__google_cloud_platform__"
# The provider refuses a connection with two of them; which one was meant cannot be known.
_KEY_FIELDS = ("key_path", "keyfile_dict", "key_secret_name", "credential_config_file")
# Fields that change who is asking in ways that only the provider knows.
_PROVIDER_FIELDS = (
    "key_secret_name",
    "credential_config_file",
    "impersonation_chain",
    "idp_issuer_url",
    "quota_project_id",
)
_TOKEN_SECONDS = 30.0


class Tokens:
    """Adds access tokens to requests. Thread-safe; one thread at a time fetches a new one.

    Reads the connection at once, and calls google-auth at the first request. Google's own
    ``transport.urllib3.AuthorizedHttp`` would do much the same, but takes 0.2 s to import, lets
    sixteen threads fetch sixteen tokens, and waits for the token endpoint without end.

    Args:
        pool: For requests to token endpoints.
        conn_id: Airflow connection.
        scope: OAuth scope to ask for where the connection names none.

    Raises:
        StoreUnavailableError: The connection's extra cannot be read.
    """

    def __init__(self, pool: urllib3.PoolManager, conn_id: str, scope: str = "") -> None:
        self._pool = pool
        self._conn_id = conn_id
        self._lock = threading.Lock()
        self._is_loaded = False
        self._credentials: Any = None
        try:
            self._fields = {"scope": scope or _SCOPE, **connection_fields(conn_id)}
        except ValueError as error:
            raise self._unusable(error) from error

    @property
    def account(self) -> str:
        """E-mail of the service account; "" before the first request, and for other credentials."""
        email = str(getattr(self._credentials, "service_account_email", ""))
        return email if "@" in email else ""

    def authorize(self, method: str, url: str, headers: dict[str, str], *, refused: str = "") -> str:
        """Add a token to ``headers`` and return it; "" when requests are anonymous.

        Args:
            method: HTTP method.
            url: Request URL.
            headers: Request headers, modified in place.
            refused: Token that the server did not accept; it is replaced.

        Raises:
            StoreUnavailableError: The connection's key does not work, or there are no credentials here.
            Transient: The token endpoint could not be reached.
        """
        from google.auth.exceptions import GoogleAuthError, TransportError

        if not self._lock.acquire(timeout=remaining()):
            raise Transient("another thread is waiting for a token")
        try:
            if not self._is_loaded:
                self._credentials = self._load()
                self._is_loaded = True
            if self._credentials is None:
                return ""
            request = _Request(self._pool)
            if refused and self._credentials.token == refused:
                self._credentials.refresh(request)
            self._credentials.before_request(request, method, url, headers)
            return str(self._credentials.token or "")
        except GoogleAuthError as error:
            if isinstance(error, TransportError) or getattr(error, "retryable", False):
                raise Transient(f"no token: {error}") from error
            raise self._unusable(error) from error
        finally:
            self._lock.release()

    def _load(self) -> Any:
        from airflow.exceptions import AirflowException  # type: ignore[attr-defined]
        from google.auth.exceptions import GoogleAuthError

        try:
            return _credentials(self._conn_id, self._fields, self._pool)
        except (
            AirflowException,
            GoogleAuthError,
            ImportError,
            KeyError,
            OSError,
            TypeError,
            ValueError,
        ) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"No credentials for Google Cloud Storage: {_line(error)}. Give connection {self._conn_id!r} "
            "([gcs_xcom] conn_id) a working key, or run where Application Default Credentials exist (a "
            "machine with a service account, or after: gcloud auth application-default login). Nothing was "
            "stored or read.",
            conn_id=self._conn_id,
        )


class _Request:
    """Sends google-auth's requests, within the time limit and without retries of its own.

    Args:
        pool: Connections.
        is_detecting: Whether google-auth is finding out if there is a metadata server: it expects its
            own error if there is none.
    """

    def __init__(self, pool: urllib3.PoolManager, *, is_detecting: bool = False) -> None:
        self._pool = pool
        self._is_detecting = is_detecting

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Any = None,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> urllib3.BaseHTTPResponse:
        seconds = min(timeout or _TOKEN_SECONDS, remaining())
        try:
            response = self._pool.request(
                method, url, body=body, headers=headers, timeout=seconds, retries=False, **kwargs
            )
        except urllib3.exceptions.HTTPError as error:
            if self._is_detecting:
                from google.auth.exceptions import TransportError

                raise TransportError(error) from error  # type: ignore[no-untyped-call]
            raise Transient(f"no token: {type(error).__name__}: {error}") from error
        self._is_detecting = False
        if response.status in TRANSIENT_STATUSES:
            raise Transient(
                f"no token: HTTP {response.status} {reason(response)}", retry_after(response.headers)
            )
        return response

    def __deepcopy__(self, memo: object) -> _Request:
        # google-auth copies it to look up regional boundaries in a thread of its own at every request,
        # and does without where it cannot.
        raise TypeError("not to be used in other threads")


def _credentials(conn_id: str, fields: dict[str, Any], pool: urllib3.PoolManager) -> Any:
    """Return google-auth's credentials, None for anonymous requests."""
    if str(fields.get("is_anonymous", "")).lower() in ("true", "1", "yes", "on"):
        return None
    keys = [name for name in _KEY_FIELDS if fields.get(name)]
    if len(keys) > 1:
        raise ValueError(f"the connection has {' and '.join(keys)}; keep one of them")
    scopes = [scope.strip() for scope in str(fields.get("scope") or _SCOPE).split(",")]
    if any(fields.get(name) for name in _PROVIDER_FIELDS):
        from airflow.providers.google.common.hooks.base_google import GoogleBaseHook

        return GoogleBaseHook(gcp_conn_id=conn_id).get_credentials()
    key = (
        Path(fields["key_path"]).read_text("utf-8") if fields.get("key_path") else fields.get("keyfile_dict")
    )
    if key:
        from google.oauth2.service_account import Credentials

        key = json.loads(key) if isinstance(key, str) else dict(key)
        # Airflow's form and many shells escape the key's line breaks once more.
        key = {**key, "private_key": str(key.get("private_key", "")).replace("\\n", "\n")}
        return Credentials.from_service_account_info(key, scopes=scopes)  # type: ignore[no-untyped-call]
    import google.auth

    request: Any = _Request(pool, is_detecting=True)
    return google.auth.default(scopes=scopes, request=request)[0]


def connection_fields(conn_id: str) -> dict[str, Any]:
    """Return the connection's extra, old field names without their prefix; empty if there is none."""
    from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
    from airflow.sdk import Connection

    try:
        try:
            extra = Connection.get(conn_id).extra_dejson
        except ImportError:
            # Airflow 3.0 outside of a task has no supervisor to ask. Drop when Airflow >= 3.1.
            from airflow.models import Connection as StoredConnection

            extra = StoredConnection.get_connection_from_secrets(conn_id).extra_dejson
    except AirflowNotFoundException:
        return {}
    if not isinstance(extra, dict):
        raise ValueError("the connection's extra is not a JSON object")
    old = {
        name.removeprefix(_OLD_PREFIX): value for name, value in extra.items() if name.startswith(_OLD_PREFIX)
    }
    return {**old, **extra}


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")[:400]
    return f"{type(error).__name__}: {text}"
