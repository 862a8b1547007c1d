"""Ask Airflow's REST API which XComs have rows, and what a row holds.

The API and not the metadata database: it can be reached from wherever these commands run (a laptop, a
task, Astro, Composer), it checks permissions, and it is the same from Airflow 3.0 on, while tasks of
Airflow 3 cannot reach the database at all.

Every question names a Dag: asked about all Dags, the API silently leaves out what the user may not
read, and such a row must never look like one that is gone.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx

from ..reference import Coordinates
from .output import CommandError

__all__ = ["MISSING", "PAGE_ROWS", "AirflowAPI", "AirflowAPIError", "Login", "Query", "RowPage"]

MISSING = object()
"""A row that does not exist. None may be a value."""
PAGE_ROWS = 100
"""The most rows that Airflow lists at once ([api] maximum_page_limit)."""

# https://cloud.google.com/composer/docs/composer-3/access-airflow-api
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_SECONDS = 60.0
_TRIES = 3
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
# A server that takes longer is given as long to recover, at most _LONGEST_PAUSE_SECONDS.
_SLOW_SECONDS = 3.0
_LONGEST_PAUSE_SECONDS = 30.0
_ANY = "~"

Query = dict[str, str | int]


class AirflowAPIError(CommandError):
    """Airflow did not answer the question. Nothing follows about its rows.

    Args:
        message: Text for people.
        status: HTTP status; 0 if there was no response, and 401 for every complaint about a token.
    """

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_final(self) -> bool:
        """Whether the server is up, accepts the user, and would answer the same again."""
        return 400 <= self.status < 500 and self.status != 401


class RowPage(NamedTuple):
    """One page of a listing of rows, without their values.

    Attributes:
        rows: Coordinates, in the order of the server.
        total: Rows of all pages.
    """

    rows: list[Coordinates]
    total: int


@dataclass(frozen=True)
class Login:
    """Address of the API, and the user that asks.

    Attributes:
        url: ``https://host/path`` without ``/api/v2``.
        username: Exchanged with ``password`` for a token at ``/auth/token``.
        token: Sent as ``Authorization: Bearer``. Takes precedence over a user name.
        is_google: Without the others, use Application Default Credentials, as Cloud Composer expects; an
            expired token is replaced.
    """

    url: str
    username: str = ""
    password: str = ""
    token: str = ""
    is_google: bool = False

    @classmethod
    def find(cls, url: str | None = None, username: str | None = None) -> Login:
        """Read AIRFLOW_API_URL, AIRFLOW_API_USERNAME, AIRFLOW_API_PASSWORD, and AIRFLOW_API_TOKEN.

        COMPOSER_ENVIRONMENT, which Cloud Composer sets in every component, implies ``is_google``. The
        default URL is that of the server that tasks talk to (``[core] execution_api_server_url``), else
        ``[api] base_url``.
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
        login: Address and user.
        connections: Requests at a time.
    """

    def __init__(self, login: Login, connections: int = 8) -> None:
        if not login.url.startswith(("http://", "https://")):
            raise AirflowAPIError(f"{login.url!r} is not a URL: set AIRFLOW_API_URL to https://host")
        bundle = os.environ.get("REQUESTS_CA_BUNDLE")
        self._client = httpx.Client(
            headers={"accept": "application/json"},
            timeout=_SECONDS,
            limits=httpx.Limits(max_connections=connections),
            verify=ssl.create_default_context(cafile=bundle) if bundle else True,
        )
        # One line per request would fill the log of a task.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._login = login
        self._lock = threading.Lock()
        self._token = ""
        self._google: Any = None

    @property
    def url(self) -> str:
        """Address of the server, without ``/api/v2``."""
        return self._login.url

    def get(self, path: str, query: Query) -> Any:
        """Return the answer of a path below ``/api/v2``.

        Raises:
            AirflowAPIError: It was anything but success.
        """
        return self._get(path, query)

    def history(self, dag_id: str, task_id: str, query: Query) -> dict[str, Any]:
        """Return what the payload viewer tells of an XCom over its runs; status 404, or 200, without one."""
        path = f"/history/{_quoted(dag_id)}/{_quoted(task_id)}"
        answer: dict[str, Any] = self._ask("GET", path, root="/payload-viewer", params=query)
        return answer

    def version(self) -> tuple[int, ...]:
        """Return Airflow's version, such as ``(3, 3)``."""
        answer = self._get("/version")
        try:
            return tuple(int(part) for part in str(answer["version"]).split(".")[:2])
        except (KeyError, TypeError, ValueError) as error:
            raise AirflowAPIError(
                f"{self.url} is not Airflow 3: /api/v2/version answers {str(answer)[:100]!r}"
            ) from error

    def list_rows(
        self,
        dag_id: str,
        run_id: str | None = None,
        task_id: str | None = None,
        *,
        offset: int = 0,
        limit: int = PAGE_ROWS,
        filters: Query | None = None,
    ) -> RowPage:
        """Return a page of the rows of a Dag, a run, or a task.

        Rows that are written or deleted between two pages shift the others, so a row that is on no page
        may still exist.

        Args:
            dag_id: Dag.
            run_id: Dag run; None for all of the Dag's.
            task_id: Task; None for all.
            offset: Rows to skip.
            limit: Rows to return, at most ``PAGE_ROWS``.
            filters: ``xcom_key``, ``map_index``, ``order_by``.
        """
        path = f"{_path(dag_id, run_id, task_id)}/xcomEntries"
        answer = self._get(path, {"limit": limit, "offset": offset, **(filters or {})})
        try:
            return RowPage(
                [_coordinates(row) for row in answer["xcom_entries"]], int(answer["total_entries"])
            )
        except (KeyError, TypeError, ValueError) as error:
            raise AirflowAPIError(f"{self.url} answers {path} with something other than XComs") from error

    def all_rows(
        self, dag_id: str, run_id: str | None = None, task_id: str | None = None, filters: Query | None = None
    ) -> Iterator[Coordinates]:
        """Yield the rows of all pages; see ``list_rows``."""
        seen = 0
        while True:
            page = self.list_rows(dag_id, run_id, task_id, offset=seen, filters=filters)
            yield from page.rows
            seen += len(page.rows)
            if not page.rows or seen >= page.total:
                return

    def value(self, xcom: Coordinates) -> Any:
        """Return what the database holds for one XCom, a reference as a dict; ``MISSING`` if it has no row.

        Raises:
            AirflowAPIError: Airflow did not answer. A 404 means "no row" only in Airflow's own words: a
                wrong URL and a proxy answer 404 as well.
        """
        return self._value(xcom, {"map_index": xcom.map_index})

    def values_of_regions(self, xcom: Coordinates) -> Iterator[Any]:
        """Yield what the database holds for all rows with these coordinates, where loops give a task several.

        Airflow 3.4 only: each run of a loop or of a mapped task is a region, in which indexes count from 0.
        A task in a loop has the map index -1, and the iteration as its region index.

        Raises:
            AirflowAPIError: Airflow did not answer.
        """
        path = f"{_path(xcom.dag_id, xcom.run_id, xcom.task_id)}/xcomEntries"
        for map_index in {xcom.map_index, -1}:
            query: Query = {"xcom_key": xcom.key, "map_index": map_index, "limit": PAGE_ROWS}
            seen = 0
            while True:
                answer = self._get(path, {**query, "offset": seen})
                page = answer["xcom_entries"]
                for row in page:
                    region, index = row.get("region_id"), row.get("region_index")
                    where: Query = {"map_index": row["map_index"]}
                    if region is not None:
                        where = {"region_id": region, "region_index": index}
                    if _coordinates(row).map_index == xcom.map_index:
                        value = self._value(xcom, where)
                        if value is not MISSING:
                            yield value
                seen += len(page)
                if not page or seen >= answer["total_entries"]:
                    break

    def _value(self, xcom: Coordinates, where: Query) -> Any:
        path = f"{_path(xcom.dag_id, xcom.run_id, xcom.task_id)}/xcomEntries/{_quoted(xcom.key)}"
        answer = self._get(path, where, words="XCom entry with key")
        if answer is MISSING:
            return MISSING
        try:
            same = [answer[name] for name in ("dag_id", "run_id", "task_id", "key")]
            value = answer["value"]
        except (KeyError, TypeError) as error:
            raise AirflowAPIError(f"the answer about {xcom} is not an XCom") from error
        if same != [xcom.dag_id, xcom.run_id, xcom.task_id, xcom.key]:
            raise AirflowAPIError(f"the answer about {xcom} is another XCom")
        return value

    def knows_dag(self, dag_id: str) -> bool:
        """Return whether Airflow has a Dag of this id, or rows of one whose file is gone."""
        path = f"/dags/{_quoted(dag_id)}"
        return (
            self._get(path, words="was not found") is not MISSING or self.list_rows(dag_id, limit=1).total > 0
        )

    def dag_ids(self) -> Iterator[str]:
        """Yield the ids of all Dags that the user may read, also of those whose file is gone."""
        seen = 0
        while True:
            # The second name is that of Airflow 3.0.
            query: Query = {
                "limit": PAGE_ROWS,
                "offset": seen,
                "exclude_stale": "false",
                "only_active": "false",
            }
            answer = self._get("/dags", query)
            page = [str(one["dag_id"]) for one in answer["dags"]]
            yield from page
            seen += len(page)
            if not page or seen >= answer["total_entries"]:
                return

    def variable(self, key: str) -> str:
        """Return an Airflow Variable of the metadata database; empty if there is none."""
        answer = self._get(f"/variables/{_quoted(key)}", words="was not found")
        return "" if answer is MISSING else str(answer.get("value") or "")

    def create_variable(self, key: str, value: str, description: str) -> None:
        """Create an Airflow Variable; leave one that exists as it is."""
        body = {"key": key, "value": value, "description": description}
        self._ask("POST", "/variables", accepted=(201, 409), json=body)

    def _get(self, path: str, query: Query | None = None, *, words: str = "") -> Any:
        """Ask for JSON; return ``MISSING`` for a 404 whose detail has ``words``."""
        return self._ask("GET", path, words=words, params=query)

    def _ask(
        self, method: str, path: str, *, root: str = "/api/v2", words: str = "",
        accepted: tuple[int, ...] = (200,), **content: Any,
    ) -> Any:  # fmt: skip
        url = f"{self.url}{root}{path}"
        response = self._send(method, url, self._authorize(), **content)
        if response.status_code == 401 and not self._login.token:
            # Tokens expire, and a sweep may take longer than they last.
            refused = response.request.headers["authorization"].removeprefix("Bearer ")
            response = self._send(method, url, self._authorize(refused), **content)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.status_code in accepted and isinstance(answer, dict):
            return answer
        detail = str(answer.get("detail", "")) if isinstance(answer, dict) else ""
        if response.status_code == 404 and words and words in detail:
            return MISSING
        raise self._refused(method, url, response, detail)

    def _refused(self, method: str, url: str, response: httpx.Response, detail: str) -> AirflowAPIError:
        said = f"HTTP {response.status_code} {detail or response.reason_phrase}".strip()[:300]
        status = 401 if "token" in detail.lower() else response.status_code
        # As docs/operations.md lists the permissions.
        permission = (
            "read and create Variables" if "/variables" in url else "read access to XComs of that Dag"
        )
        advice = {
            401: "the token is not accepted: renew AIRFLOW_API_TOKEN, or set AIRFLOW_API_USERNAME and _PASSWORD",
            403: f"this user lacks a permission: grant {permission}",
            404: f"check that {self.url} is Airflow's API server (AIRFLOW_API_URL)",
        }.get(status, "see the log of the API server")
        return AirflowAPIError(f"{method} {url}: {said}; {advice}", status=status)

    def _send(self, method: str, url: str, token: str, **content: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        failure = ""
        wait_seconds = 0.0
        for tries in range(_TRIES):
            time.sleep(max(tries * 0.5, wait_seconds))
            started = time.monotonic()
            try:
                response = self._client.request(method, url, headers=headers, **content)
            except httpx.HTTPError as error:
                failure = f"{type(error).__name__}: {error}"
                continue
            seconds = time.monotonic() - started
            if response.status_code not in _TRANSIENT:
                if seconds > _SLOW_SECONDS:
                    time.sleep(min(seconds, _LONGEST_PAUSE_SECONDS))
                return response
            failure = f"HTTP {response.status_code} {response.reason_phrase}"
            asked = response.headers.get("retry-after", "")
            wait_seconds = min(float(asked), _LONGEST_PAUSE_SECONDS) if asked.isdecimal() else 0.0
        raise AirflowAPIError(
            f"Airflow's API at {self.url} did not answer ({failure}); set --api-url or AIRFLOW_API_URL"
        )

    def _authorize(self, refused: str = "") -> str:
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
            body = {"username": login.username, "password": login.password}
            response = self._send("POST", url, "", json=body)
        else:
            # A development setup in which everybody is an admin gives a token to anyone.
            response = self._send("GET", url, "")
        try:
            return str(response.json()["access_token"])
        except (ValueError, KeyError, TypeError):
            pass
        status = response.status_code
        if login.username:
            said = f"user {login.username!r} was not accepted (HTTP {status})"
            advice = "check AIRFLOW_API_USERNAME and AIRFLOW_API_PASSWORD"
        else:
            said = f"a token is needed (HTTP {status})"
            advice = "set AIRFLOW_API_TOKEN, or AIRFLOW_API_USERNAME and AIRFLOW_API_PASSWORD"
        raise AirflowAPIError(f"no access to Airflow's API at {self.url}: {said}; {advice}")

    def _google_token(self) -> str:
        """Fetch a token as Google documents it for the Airflow of Cloud Composer."""
        split = urlsplit(self.url)
        if split.scheme != "https" and split.hostname not in ("127.0.0.1", "localhost"):
            raise AirflowAPIError(
                f"no Google token is sent to {self.url}, which is not https; set AIRFLOW_API_URL to "
                "config.airflowUri of `gcloud composer environments describe`"
            )
        import google.auth
        import urllib3
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.urllib3 import Request

        try:
            if self._google is None:
                self._google, _ = google.auth.default(scopes=[_GOOGLE_SCOPE])
            self._google.refresh(Request(urllib3.PoolManager()))  # type: ignore[no-untyped-call]
        except GoogleAuthError as error:
            raise AirflowAPIError(
                f"no access to Airflow's API at {self.url}: no Google token ({error}); run where Application "
                "Default Credentials are available, or set AIRFLOW_API_TOKEN"
            ) from error
        return str(self._google.token)


def _coordinates(row: dict[str, Any]) -> Coordinates:
    # In Airflow 3.4 a task has one row per iteration of a loop.
    index = row.get("region_index")
    index = row["map_index"] if index is None else index
    return Coordinates(row["dag_id"], row["run_id"], row["task_id"], int(index), row["key"])


def _path(dag_id: str, run_id: str | None, task_id: str | None) -> str:
    run = _ANY if run_id is None else _quoted(run_id)
    task = _ANY if task_id is None else _quoted(task_id)
    return f"/dags/{_quoted(dag_id)}/dagRuns/{run}/taskInstances/{task}"


def _quoted(text: str) -> str:
    """Quote an id for a path.

    Raises:
        AirflowAPIError: The id is ``~``, which the API reads as "all".
    """
    if text == _ANY:
        raise AirflowAPIError(f"the API cannot be asked about the id {_ANY}")
    quoted = quote(text, safe="", errors="surrogatepass")
    # HTTP clients would resolve "." and "..".
    return quoted if text.strip(".") else quoted.replace(".", "%2E")
