"""The pages and files of the payload viewer, as an application that Airflow's API server mounts.

Every request is checked by Airflow's own auth manager for reading XComs of exactly the Dag that its
path names. The ids stand in the path, the rest in the query::

    instance/{dag_id}/{run_id}/{task_id}/{map_index}?key=...   XComs of a task instance, one opened
    run/{dag_id}/{run_id}                                      all XComs of a Dag run, with their sizes
    object/{dag_id}/{run_id}/{task_id}/{map_index}?key=...     one payload, to be saved
    image/{dag_id}/{run_id}/{task_id}/{map_index}?key=...      one payload that is a picture
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import quote, unquote

import structlog
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from include.xcom.errors import PayloadError
from include.xcom.reference import PayloadReference
from include.xcom.viewer import blob, bundle, limits, pages, rows
from include.xcom.viewer.inspector import ViewTimeoutError, inspect
from include.xcom.viewer.pipe import PipedFile
from include.xcom.viewer.ranged import Held, Source, open_source
from include.xcom.viewer.rows import Row
from include.xcom.viewer.words import Trouble, trouble

__all__ = ["make_app"]

log = structlog.get_logger(__name__)

_FILES = Path(__file__).parent / "templates"
_views = BoundedSemaphore(limits.VIEWS_AT_ONCE)
_downloads = BoundedSemaphore(limits.DOWNLOADS_AT_ONCE)
_QUIET = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
_SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'self'"


@dataclass(frozen=True)
class Ids:
    """What the path of a request names."""

    dag_id: str
    run_id: str
    task_id: str = ""
    map_index: int = -1

    @property
    def path(self) -> str:
        """The ids as they stand in a path."""
        parts = [self.dag_id, self.run_id]
        parts += [self.task_id, str(self.map_index)] if self.task_id else []
        return "/".join(quote(part, safe="") for part in parts)


def make_app() -> FastAPI:
    """Make the application; nothing is opened."""
    app = FastAPI(title="Payload viewer", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/viewer.css", _css, methods=["GET"])
    app.add_api_route("/viewer.js", _js, methods=["GET"])
    app.add_api_route("/instance/{ids:path}", _instance, methods=["GET"])
    app.add_api_route("/run/{ids:path}", _run, methods=["GET"])
    app.add_api_route("/object/{ids:path}", _object, methods=["GET"])
    app.add_api_route("/image/{ids:path}", _image, methods=["GET"])
    app.add_exception_handler(StarletteHTTPException, _refused)
    return app


# ------------------------------------------------------------------------------------------- who, what


def _ids(request: Request, count: int) -> Ids:
    """Read ids from the path as it was sent: an encoded slash belongs to an id.

    Raises:
        HTTPException: There are more or fewer.
    """
    raw = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    parts = raw.decode("ascii", "replace").partition("?")[0].split("/")
    route = request.scope["route"].path.split("/")[1]
    ids = [unquote(part) for part in parts[-count:]]
    if len(parts) <= count or parts[-count - 1] != route or not all(ids[:3]):
        raise HTTPException(404, "This address names no task instance or Dag run.")
    if count == 2:
        return Ids(ids[0], ids[1])
    # Airflow leaves the placeholder where an instance is not mapped.
    index = "-1" if ids[3] in ("", "{MAP_INDEX}") else ids[3]
    if not index.removeprefix("-").isdecimal() or len(index) > 9:
        raise HTTPException(404, "This address names no map index.")
    return Ids(ids[0], ids[1], ids[2], int(index))


def _allowed(request: Request, user: Any, count: int) -> Ids:
    """Return the ids of a request, once Airflow's auth manager has let the user read XComs of that Dag.

    Raises:
        HTTPException: 403, or 404 for a path without ids.
    """
    ids = _ids(request, count)
    requires_access_dag("GET", DagAccessEntity.XCOM, ids.dag_id)(request, user)
    return ids


def _row(ids: Ids, key: str) -> Row:
    for row in rows.of_instance(ids.dag_id, ids.run_id, ids.task_id, ids.map_index):
        if row.key == key:
            return row
    raise HTTPException(
        404, "This task instance has no XCom of that key: it did not run yet, or was cleared."
    )


@contextmanager
def _one_of(places: BoundedSemaphore) -> Iterator[None]:
    if not places.acquire(timeout=limits.WAIT_SECONDS):
        raise HTTPException(503, "Many payloads are being looked at just now. Try again in a few seconds.")
    try:
        yield
    finally:
        places.release()


def _log_view(event: str, user: Any, ids: Ids, key: str, size: int, outcome: str) -> None:
    log.info(
        event,
        user=str(user.get_name()),
        dag_id=ids.dag_id,
        run_id=ids.run_id,
        task_id=ids.task_id,
        map_index=ids.map_index,
        key=key,
        bytes=size,
        outcome=outcome,
    )


# ---------------------------------------------------------------------------------------------- pages


def _instance(
    request: Request,
    user: GetUserDep,
    key: str = "",
    part: str = "",
    row: int = 0,
    column: int = 0,
    start: int = 0,
    index: str = "",
    whole: bool = False,
) -> Response:
    """Show the XComs of a task instance, one of them opened."""
    ids = _allowed(request, user, 4)
    found = rows.of_instance(ids.dag_id, ids.run_id, ids.task_id, ids.map_index)
    opened = next((one for one in found if one.key == key), None)
    if key and opened is None:
        raise HTTPException(
            404, "This task instance has no XCom of that key: it did not run yet, or was cleared."
        )
    opened = opened or (found[0] if found else None)
    shown: dict[str, Any] | None = None
    problem: Trouble | None = None
    checked = ""
    if opened is not None:
        question = {
            "part": part,
            "row": max(row, 0),
            "column": max(column, 0),
            "start": max(start, 0),
            "whole": whole,
            "index": [int(one) for one in index.split(",")[:32] if one.isdecimal() and len(one) < 12],
        }
        size, outcome = 0, "shown"
        try:
            with _one_of(_views):
                source, question = _source_of(opened, question)
                viewed = inspect(source, question)
            shown, size, checked = viewed.shown, viewed.bytes_read, source.checked
        except (PayloadError, ViewTimeoutError) as error:
            problem, outcome = trouble(error), type(error).__name__
        _log_view("xcom payload viewed", user, ids, opened.key, size, outcome)
    page = pages.instance(
        root=_root(request),
        ids=ids,
        rows=found,
        opened=opened,
        part=part,
        shown=shown,
        checked=checked,
        trouble=problem,
    )
    return _html(page)


def _source_of(row: Row, question: dict[str, Any]) -> tuple[Source, dict[str, Any]]:
    if row.reference is None:
        if row.problem:
            from include.xcom.errors import ReferenceNotAllowedError

            raise ReferenceNotAllowedError(row.problem)
        if row.text is None:
            from include.xcom.errors import PayloadTooLargeError

            raise PayloadTooLargeError(f"The row holds {row.characters:,} characters of JSON.")
        return Held(row.text.encode(errors="surrogatepass")), {**question, "codec": "json"}
    asked = {**question, "codec": row.reference.codec, "version": row.reference.codec_version}
    return open_source(row.reference), asked


def _run(request: Request, user: GetUserDep, sort: str = "stored") -> Response:
    """Show all XComs of a Dag run with their sizes, the largest first."""
    ids = _allowed(request, user, 2)
    found = rows.of_run(ids.dag_id, ids.run_id)
    log.info(
        "xcom payloads listed",
        user=str(user.get_name()),
        dag_id=ids.dag_id,
        run_id=ids.run_id,
        rows=len(found),
    )
    return _html(pages.run(root=_root(request), ids=ids, rows=found, sort=sort))


# ---------------------------------------------------------------------------------------------- files


def _object(request: Request, user: GetUserDep, key: str) -> Response:
    """Send one payload as it is stored, under its own name; never as something a browser opens."""
    ids = _allowed(request, user, 4)
    row = _row(ids, key)
    source: Source
    if row.reference is None:
        if row.text is None or row.problem:
            raise HTTPException(413, "This row is not offered as a file.")
        name, source = "value.json", Held(row.text.encode(errors="surrogatepass"))
    else:
        name = row.reference.uri.rpartition("/")[2]
        source = _opened(row.reference)
    with _one_of(_downloads):
        pass  # Said now, while it can be said.
    _log_view("xcom payload downloaded", user, ids, key, source.size, "sent")
    return StreamingResponse(
        _pieces(source),
        media_type="application/octet-stream",
        headers={
            **_QUIET,
            "content-security-policy": _SANDBOX,
            "content-length": str(source.size),
            "content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        },
    )


def _opened(reference: PayloadReference) -> Source:
    try:
        source = open_source(reference)
        # The first byte tells whether it is there and still the same, while an error can be said.
        source.read(0, 1)
    except PayloadError as error:
        said = trouble(error)
        raise HTTPException(said.status, f"{said.title}: {said.happened}. {said.advice}") from error
    return source


def _pieces(source: Source) -> Iterator[bytes]:
    with _one_of(_downloads):
        yield from source.pieces()


def _image(request: Request, user: GetUserDep, key: str, part: str = "") -> Response:
    """Send a payload that is a picture, by its first bytes and with a fixed type; nothing else."""
    ids = _allowed(request, user, 4)
    row = _row(ids, key)
    if row.reference is None:
        raise HTTPException(404, "This XCom is no picture.")
    source = _opened(row.reference)
    start, size = 0, source.size
    if row.reference.codec == "tree":
        try:
            file = PipedFile(source.size, lambda ranges: [source.read(*span) for span in ranges])
            start, size = bundle.members(file)[part]
        except (PayloadError, KeyError) as error:
            raise HTTPException(404, "The payload has no such part.") from error
    elif row.reference.codec != "bytes":
        raise HTTPException(404, "This XCom is no picture.")
    if size > limits.IMAGE_BYTES:
        raise HTTPException(413, "The picture is too large to be shown here; download it.")
    try:
        with _one_of(_views):
            data = source.read(start, start + size)
    except PayloadError as error:
        said = trouble(error)
        raise HTTPException(said.status, f"{said.title}: {said.happened}") from error
    kind = blob.image_type(data[:16])
    if kind is None:
        raise HTTPException(404, "This XCom is no picture.")
    _log_view("xcom payload viewed", user, ids, key, size, "image")
    return Response(
        data,
        media_type=kind,
        headers={
            **_QUIET,
            "content-security-policy": _SANDBOX,
            "content-disposition": "inline; filename=picture",
        },
    )


def _css() -> Response:
    return _file("viewer.css", "text/css; charset=utf-8")


def _js() -> Response:
    return _file("viewer.js", "text/javascript; charset=utf-8")


def _file(name: str, kind: str) -> Response:
    headers = {**_QUIET, "cache-control": "no-cache"}
    return Response((_FILES / name).read_bytes(), media_type=kind, headers=headers)


# -------------------------------------------------------------------------------------------- answers


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")


def _html(page: pages.Page, status: int = 200) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'self'; script-src 'nonce-{nonce}'; img-src 'self' data:; "
        "form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
    )
    headers = {**_QUIET, "content-security-policy": policy}
    return HTMLResponse(replace(page, nonce=nonce).render(), status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    """Say in words why there is no page."""
    assert isinstance(error, StarletteHTTPException)
    titles = {
        401: ("You are not logged in", "Log in to Airflow in this browser, then open this page again."),
        403: (
            "You may not read XComs of this Dag",
            "Ask whoever manages access in this Airflow for the permission to read XComs of this Dag.",
        ),
        404: ("Nothing here", str(error.detail)),
        503: ("Busy", str(error.detail)),
    }
    title, advice = titles.get(error.status_code, ("This did not work", str(error.detail)))
    if request.scope["path"].rpartition("/")[0].find("/object/") >= 0:
        return PlainTextResponse(f"{title}. {advice}\n", error.status_code, _QUIET)
    page = pages.message(root=_root(request), title=title, advice=advice)
    return _html(page, error.status_code)
