"""Whose name the requests to Google Cloud Storage carry.

The connection ``[gcs_xcom] conn_id`` decides, with the fields of Airflow's Google connections:

========================  =====================================================================
the connection            credentials
========================  =====================================================================
does not exist            Application Default Credentials
has no key in it          Application Default Credentials
``is_anonymous``          none
``key_path``              that service account's key file
``keyfile_dict``          that service account's key
anything else             what the Google provider's hook makes of it (impersonation, secrets)
========================  =====================================================================

The provider's hook is the last resort because importing it costs a task about a second.
"""

from __future__ import annotations

import json
from typing import Any

from include.xcom.errors import StoreUnavailableError

__all__ = ["authorized"]

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
# Fields that change who is asking in ways that only the provider knows.
_PROVIDER_FIELDS = (
    "key_secret_name",
    "credential_config_file",
    "impersonation_chain",
    "idp_issuer_url",
    "quota_project_id",
)


def authorized(pool: Any, conn_id: str) -> Any:
    """Return ``pool``, or a wrapper of it that adds tokens and refreshes them.

    Raises:
        StoreUnavailableError: The connection's key is unusable, or there are no credentials here.
    """
    from google.auth.exceptions import GoogleAuthError

    try:
        credentials = _credentials(conn_id)
    except (GoogleAuthError, OSError, ValueError) as error:
        raise StoreUnavailableError(
            f"No credentials for Google Cloud Storage: {error}. Give the connection {conn_id!r} ([gcs_xcom] "
            "conn_id) a key, or run where Application Default Credentials are (a service account of the "
            "machine, or: gcloud auth application-default login).",
            conn_id=conn_id,
        ) from error
    if credentials is None:
        return pool
    from google.auth.transport.urllib3 import AuthorizedHttp

    return AuthorizedHttp(credentials, http=pool)  # type: ignore[no-untyped-call]


def _credentials(conn_id: str) -> Any:
    fields = _connection_fields(conn_id)
    if str(fields.get("is_anonymous", "")).lower() in ("true", "1"):
        return None
    scopes = [scope.strip() for scope in str(fields.get("scope") or _SCOPE).split(",")]
    if any(fields.get(name) for name in _PROVIDER_FIELDS):
        from airflow.providers.google.common.hooks.base_google import GoogleBaseHook

        return GoogleBaseHook(gcp_conn_id=conn_id).get_credentials()
    if fields.get("key_path") or fields.get("keyfile_dict"):
        from google.oauth2.service_account import Credentials

        if fields.get("key_path"):
            return Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                fields["key_path"], scopes=scopes
            )
        key = fields["keyfile_dict"]
        return Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
            json.loads(key) if isinstance(key, str) else key, scopes=scopes
        )
    import google.auth

    return google.auth.default(scopes=scopes)[0]


def _connection_fields(conn_id: str) -> dict[str, Any]:
    """Return the extra fields of the connection, without the prefix of old ones; empty if none exists."""
    from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
    from airflow.sdk import Connection

    try:
        extra = Connection.get(conn_id).extra_dejson
    except AirflowNotFoundException:
        return {}
    return {name.removeprefix("extra__google_cloud_platform__"): value for name, value in extra.items()}
