"""What Airflow knows of XComs, asked over its REST API.

The API and not the metadata database: it is reachable from wherever these commands run (a laptop,
a task, Astro, Composer), it checks who asks, and it is the same from Airflow 3.0 on, while tasks of
Airflow 3 cannot reach the database at all.

Rows are asked for one by one, because the API lists them without their values, and always by the id
of their Dag: asked about all Dags, the API leaves out silently what the user may not read, and a row
that is left out must never look like a row that is gone.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from ..reference import Coordinates
from ..stores import transport

__all__ = ["MISSING", "AirflowAPI", "AirflowAPIError", "Login"]

MISSING = object()
"""Given for a row that does not exist; None may be a value."""

# https://cloud.google.com/composer/docs/composer-3/access-airflow-api
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_SECONDS = 30.0
_TRIES = 3
_PAGE = 100  # The most that Airflow gives at once ([api] maximum_page_limit).


class AirflowAPIError(Exception):
    """Airflow did not answer what was asked; nothing may be concluded about its rows.

    Args:
        message: What a person reads.
        status: Of its answer; 0 if there was none. 401 also for whatever it says about tokens.
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_final(self) -> bool:
        """Whether the server is up, knows who asks, and would answer the same question the same way."""
        return 400 <= self.status < 500 and self.status != 401


@dataclass(frozen=True)
class Login:
    """Where the API is and who asks.

    Attributes:
        url: ``https://host/path`` without ``/api/v2``.
        username: With ``password``, exchanged for a token at ``/auth/token``.
        token: Sent as it is (``Authorization: Bearer``); counts more than a user name.
        is_google: Without the others, ask with Application Default Credentials, as Cloud Composer wants
            it; a new token is fetched whenever one has expired.
    """

    url: str
    username: str = ""
    password: str = ""
    token: str = ""
    is_google: bool = False

    @classmethod
    def find(cls, url: str | None = None, username: str | None = None) -> Login:
        """Read the environment: AIRFLOW_API_URL, AIRFLOW_API_USERNAME, _PASSWORD, _TOKEN.

        COMPOSER_ENVIRONMENT, which Cloud Composer sets in every component, stands for ``is_google``.
        Without a URL it is that of the server that tasks talk to (``[core]
        execution_api_server_url``), else ``[api] base_url``, where people have it.
        """
        environment = os.environ.get
        url = url or environment("AIRFLOW_API_URL")
        if not url:
            from airflow.configuration import conf

            tasks = conf.get("core", "execution_api_server_url", fallback="") or ""
            url = tasks.rstrip("/").removesuffix("/execution")
            url = url or conf.get("api", "base_url", fallback="") or "http://localhost:8080"
        return cls(
            url.rstrip("/").removesuffix("/api/v2"),
            username or environment("AIRFLOW_API_USERNAME", ""),
            environment("AIRFLOW_API_PASSWORD", ""),
            environment("AIRFLOW_API_TOKEN", ""),
            bool(environment("COMPOSER_ENVIRONMENT")),
        )


class AirflowAPI:
    """A session with one API server; thread-safe.

    Args:
        login: Where and who.
        connections: Requests at once.
    """

    def __init__(self, login: Login, connections: int = 8) -> None:
        if not login.url.startswith(("http://", "https://")):
            raise AirflowAPIError(f"{login.url!r} is no URL: set AIRFLOW_API_URL to https://host")
        self._login = login
        self._pool = transport.open_pool(login.url, connections)
        self._lock = threading.Lock()
        self._token = ""
        self._credentials: Any = None

    @property
    def url(self) -> str:
        """Of the server, without ``/api/v2``."""
        return self._login.url

    def version(self) -> tuple[int, ...]:
        """Return Airflow's version, ``(3, 3)``."""
        answer = self._get("/version")
        try:
            return tuple(int(part) for part in str(answer["version"]).split(".")[:2])
        except (KeyError, TypeError, ValueError) as error:
            raise AirflowAPIError(
                f"{self.url} answers, and is no Airflow 3: /api/v2/version says {answer!r}"
            ) from error

    def count_rows(self, dag_id: str, run_id: str) -> int:
        """Return how many XComs a Dag run has; 0 for a run that is gone."""
        answer = self._get(f"{_run(dag_id, run_id)}/taskInstances/~/xcomEntries", limit=1)
        return int(answer["total_entries"])

    def rows(
        self, dag_id: str, run_id: str, task_id: str = "~", key: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the rows of a run or a task, without their values."""
        path = f"{_run(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/xcomEntries"
        query = {} if key is None else {"xcom_key": key}
        found: list[dict[str, Any]] = []
        while True:
            answer = self._get(path, limit=_PAGE, offset=len(found), **query)
            page = answer["xcom_entries"]
            found += page
            if not page or len(found) >= answer["total_entries"]:
                return found

    def value(self, xcom: Coordinates) -> Any:
        """Return what the database holds for one XCom, a reference as a dict; ``MISSING`` if it has no row.

        Raises:
            AirflowAPIError: Airflow did not say. A 404 counts as "no row" only in Airflow's own words:
                a wrong URL and a proxy in between answer 404 as well.
        """
        if "~" in (xcom.dag_id, xcom.run_id, xcom.task_id):
            raise AirflowAPIError("the API takes ~ for all of them")
        path = f"{_run(xcom.dag_id, xcom.run_id)}/taskInstances/{_quoted(xcom.task_id)}/xcomEntries/{_quoted(xcom.key)}"
        answer = self._get(path, words="XCom entry with key", map_index=xcom.map_index)
        if answer is MISSING:
            return MISSING
        try:
            same = [answer[name] for name in ("dag_id", "run_id", "task_id", "key")]
            value = answer["value"]
        except (KeyError, TypeError) as error:
            raise AirflowAPIError(f"the answer about {xcom} is no XCom") from error
        if same != [xcom.dag_id, xcom.run_id, xcom.task_id, xcom.key]:
            raise AirflowAPIError(f"the answer about {xcom} is another XCom")
        return value

    def knows_dag(self, dag_id: str) -> bool:
        """Tell whether Airflow has a Dag of this id, or rows of one whose file is gone."""
        if dag_id == "~":
            raise AirflowAPIError("the API takes ~ for all Dags")
        path = f"/dags/{_quoted(dag_id)}"
        return self._get(path, words="was not found") is not MISSING or self.count_rows(dag_id, "~") > 0

    def variable(self, key: str) -> str:
        """Return an Airflow Variable of the metadata database; empty if there is none."""
        answer = self._get(f"/variables/{_quoted(key)}", words="was not found")
        return "" if answer is MISSING else str(answer.get("value") or "")

    def create_variable(self, key: str, value: str, description: str) -> None:
        """Make an Airflow Variable; one that is there stays as it is."""
        body = {"key": key, "value": value, "description": description}
        self._ask("POST", "/variables", accepted=(201, 409), body=json.dumps(body).encode())

    def _get(self, path: str, *, words: str = "", **query: Any) -> Any:
        """Ask for JSON; ``MISSING`` for a 404 whose detail has ``words``."""
        return self._ask("GET", path + (f"?{urlencode(query)}" if query else ""), words=words)

    def _ask(
        self,
        method: str,
        path: str,
        *,
        words: str = "",
        accepted: tuple[int, ...] = (200,),
        body: bytes | None = None,
    ) -> Any:
        url = f"{self.url}/api/v2{path}"
        response = self._request(method, url, body)
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = None
        if response.status in accepted and isinstance(answer, dict):
            return answer
        detail = str(answer.get("detail", "")) if isinstance(answer, dict) else ""
        if response.status == 404 and words and words in detail:
            return MISSING
        said = f"HTTP {response.status} {detail or transport.reason(response)}".strip()[:300]
        status = 401 if "token" in detail.lower() else response.status
        # As docs/operations.md lists the rights.
        right = "read and create Variables" if "/variables" in path else "read access to XComs of that Dag"
        advice = {
            401: "the token is not accepted: renew AIRFLOW_API_TOKEN, or set AIRFLOW_API_USERNAME and _PASSWORD",
            403: f"this user may not do it: grant {right}",
            404: f"check that {self.url} is Airflow's API server (AIRFLOW_API_URL)",
        }.get(status, "look at the log of the API server")
        raise AirflowAPIError(f"{method} {url}: {said}; {advice}", status=status)

    def _request(self, method: str, url: str, body: bytes | None = None) -> urllib3.BaseHTTPResponse:
        token = self._authorized("")
        response = self._send(method, url, token, body)
        if response.status == 401 and not self._login.token:
            # The token is of limited life, and a sweep may take longer.
            response = self._send(method, url, self._authorized(token), body)
        return response

    def _authorized(self, refused: str) -> str:
        if self._login.token:
            return self._login.token
        with self._lock:
            if not self._token or self._token == refused:
                self._token = self._log_in()
            return self._token

    def _log_in(self) -> str:
        url = f"{self.url}/auth/token"
        login = self._login
        if login.is_google and not login.username:
            return self._google_token()
        if login.username:
            body = json.dumps({"username": login.username, "password": login.password}).encode()
            response = self._send("POST", url, "", body)
        else:
            # Where everybody is an admin (development), a token is given to whoever asks.
            response = self._send("GET", url, "")
        try:
            return str(json.loads(response.data)["access_token"])
        except (ValueError, KeyError, TypeError):
            pass
        if login.username:
            said = f"user {login.username!r} was not accepted (HTTP {response.status})"
            advice = "check AIRFLOW_API_USERNAME and AIRFLOW_API_PASSWORD"
        else:
            said = f"a token is needed (HTTP {response.status})"
            advice = "set AIRFLOW_API_TOKEN, or AIRFLOW_API_USERNAME and AIRFLOW_API_PASSWORD"
        raise AirflowAPIError(f"no access to Airflow's API at {self.url}: {said}; {advice}")

    def _google_token(self) -> str:
        """Fetch a token as Google documents it for the Airflow of Cloud Composer."""
        split = urlsplit(self.url)
        if split.scheme != "https" and split.hostname not in ("127.0.0.1", "localhost"):
            raise AirflowAPIError(
                f"no Google token is sent to {self.url}, which is not https; set AIRFLOW_API_URL to what "
                "`gcloud composer environments describe` names as config.airflowUri"
            )
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.urllib3 import Request

        try:
            if self._credentials is None:
                self._credentials, _ = google.auth.default(scopes=[_GOOGLE_SCOPE])
            with transport.time_limit(_SECONDS):
                self._credentials.refresh(Request(self._pool))  # type: ignore[no-untyped-call]
        except GoogleAuthError as error:
            raise AirflowAPIError(
                f"no access to Airflow's API at {self.url}: no Google token ({error}); run where Application "
                "Default Credentials are, or set AIRFLOW_API_TOKEN"
            ) from error
        return str(self._credentials.token)

    def _send(self, method: str, url: str, token: str, body: bytes | None = None) -> urllib3.BaseHTTPResponse:
        headers = {"accept": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        if body is not None:
            headers["content-type"] = "application/json"
        said = ""
        for tries in range(_TRIES):
            time.sleep(tries * 0.5)
            try:
                with transport.time_limit(_SECONDS):
                    response = self._pool.request(
                        method,
                        url,
                        headers=headers,
                        body=body,
                        retries=False,
                        redirect=False,
                        timeout=_SECONDS,
                    )
            except urllib3.exceptions.HTTPError as error:
                said = f"{type(error).__name__}: {error}"
                continue
            if response.status not in transport.TRANSIENT_STATUSES:
                return response
            said = f"HTTP {response.status} {transport.reason(response)}"
        raise AirflowAPIError(
            f"Airflow's API at {self.url} did not answer ({said}); name it with --api-url or AIRFLOW_API_URL"
        )


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"


def _quoted(text: str) -> str:
    return quote(text, safe="~", errors="surrogatepass")
