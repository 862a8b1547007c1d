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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from ..errors import PayloadError, PayloadTooLargeError, ReferenceNotAllowedError
from ..reference import Coordinates
from . import blob, limits, pages, rows
from .inspector import ViewTimeoutError, inspect
from .journal import View
from .places import BusyError, Places
from .ranged import Held, Source, open_source
from .rows import Row
from .words import Trouble, trouble

__all__ = ["make_app"]

_FILES = Path(__file__).parent / "templates"
_views = Places(limits.VIEWS_AT_ONCE)
_downloads = Places(limits.DOWNLOADS_AT_ONCE)
_NO_KEY = "This task instance has no XCom of that key: it did not run yet, or was cleared."
_NO_PICTURE = "This XCom is no picture."
_QUIET = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
_SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'self'"
# Said, or Airflow compresses what is sent, which takes its processor's time and the length away.
_FILE = {**_QUIET, "content-security-policy": _SANDBOX, "content-encoding": "identity"}


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
    app.add_exception_handler(RequestValidationError, _misspelt)
    app.add_exception_handler(BusyError, _busy)
    app.add_exception_handler(Exception, _failed)
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
    texts = [*ids, request.query_params.get("key", "")]
    if any("\0" in text for text in texts):  # PostgreSQL takes no such text, and has none.
        raise HTTPException(404, "No task instance, Dag run or XCom key has such a name.")
    if len(parts) <= count or parts[-count - 1] != route or not all(ids[:3]):
        raise HTTPException(404, "This address names no task instance or Dag run.")
    if count == 2:
        return Ids(ids[0], ids[1])
    # Airflow leaves the placeholder where an instance is not mapped.
    index = "-1" if ids[3] in ("", "{MAP_INDEX}") else ids[3]
    if not index.removeprefix("-").isdecimal() or len(index) > 9:
        raise HTTPException(404, "This address names no map index.")
    return Ids(ids[0], ids[1], ids[2], int(index))


def _check(request: Request, user: Any, ids: Ids) -> None:
    """Let Airflow's auth manager decide whether the user may read XComs of that Dag.

    Raises:
        HTTPException: 403.
    """
    requires_access_dag("GET", DagAccessEntity.XCOM, ids.dag_id)(request, user)


def _row(ids: Ids, key: str) -> Row:
    for row in rows.of_instance(ids.dag_id, ids.run_id, ids.task_id, ids.map_index):
        if row.key == key:
            return row
    raise HTTPException(404, _NO_KEY)


def _opened(row: Row, ids: Ids, view: View) -> Source:
    """Open what a row refers to.

    Raises:
        PayloadError: See ``open_source``.
    """
    assert row.reference is not None
    owner = Coordinates(ids.dag_id, ids.run_id, row.task_id, row.map_index, row.key)
    return open_source(row.reference, owner, view.tally)


class _Refusal(HTTPException):
    """An answer without a page or file, in words of its own."""

    def __init__(self, said: Trouble) -> None:
        super().__init__(said.status, said.happened)
        self.said = said


# ---------------------------------------------------------------------------------------------- pages


def _instance(
    request: Request,
    user: GetUserDep,
    key: str = "",
    part: str = "",
    row: int = 0,
    column: int = 0,
    start: int = 0,
    index: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
    whole: bool = False,
) -> Response:
    """Show the XComs of a task instance, one of them opened."""
    ids = _ids(request, 4)
    question = {
        "part": part,
        "row": max(row, 0),
        "column": max(column, 0),
        "start": max(start, 0),
        "whole": whole,
        "index": _numbers(index),
    }
    with View("xcom payload viewed", user, ids, key, "shown") as view:
        _check(request, user, ids)
        found = rows.of_instance(ids.dag_id, ids.run_id, ids.task_id, ids.map_index)
        opened = next((one for one in found if one.key == key), None)
        if key and opened is None:
            raise HTTPException(404, _NO_KEY)
        opened = opened or (found[0] if found else None)
        shown: dict[str, Any] | None = None
        problem: Trouble | None = None
        checked = ""
        if opened is None:
            view.outcome = "nothing there"
        else:
            view.key = opened.key
            try:
                with _views.one():
                    source, asked = _source_of(opened, ids, question, view)
                    shown, checked = inspect(source, asked).shown, source.checked
            except (PayloadError, ViewTimeoutError) as error:
                problem = trouble(error)
                view.failed(error)
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


def _numbers(index: list[str]) -> list[int]:
    """Read where a slice lies: a number for each axis, or several with commas between them."""
    numbers = ",".join(index[:32]).split(",")[:32]
    return [int(one) if one.isdecimal() and len(one) < 12 else 0 for one in numbers]


def _source_of(row: Row, ids: Ids, question: dict[str, Any], view: View) -> tuple[Source, dict[str, Any]]:
    if row.reference is not None:
        asked = {**question, "codec": row.reference.codec, "version": row.reference.codec_version}
        return _opened(row, ids, view), asked
    if row.problem:
        raise ReferenceNotAllowedError(row.problem)
    text = rows.with_text(row, ids.dag_id, ids.run_id).text
    if text is None:
        raise PayloadTooLargeError(f"The row holds {row.characters:,} characters of JSON.")
    data = text.encode(errors="surrogatepass")
    view.tally.add(len(data))
    return Held(data), {**question, "codec": "json"}


def _run(request: Request, user: GetUserDep, sort: str = "stored") -> Response:
    """Show all XComs of a Dag run with their sizes, the largest first."""
    ids = _ids(request, 2)
    with View("xcom payloads listed", user, ids, "", "shown") as view:
        _check(request, user, ids)
        listing = rows.of_run(ids.dag_id, ids.run_id)
        view.rows = len(listing.rows)
        return _html(pages.run(root=_root(request), ids=ids, listing=listing, sort=sort))


# ---------------------------------------------------------------------------------------------- files


def _object(request: Request, user: GetUserDep, key: str) -> Response:
    """Send one payload as it is stored, under its own name; never as something a browser opens."""
    ids = _ids(request, 4)
    with View("xcom payload downloaded", user, ids, key, "sent") as view:
        _check(request, user, ids)
        row = _row(ids, key)
        _downloads.take()
        try:
            name, source = _file_of(row, ids, view)
        except BaseException:
            _downloads.give_back()
            raise
        # From here on the place and the line of the log are the answer's.
        view.goes_on = True
        return _Sending(
            source,
            view,
            media_type="application/octet-stream",
            headers={
                **_FILE,
                "content-length": str(source.size),
                "content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            },
        )


def _file_of(row: Row, ids: Ids, view: View) -> tuple[str, Source]:
    try:
        if row.reference is not None:
            return row.reference.uri.rpartition("/")[2], _opened(row, ids, view)
        if row.problem:
            raise ReferenceNotAllowedError(row.problem)
        text = rows.with_text(row, ids.dag_id, ids.run_id).text
        if text is None:
            raise PayloadTooLargeError(
                f"The row holds {row.characters:,} characters of JSON, and no object that could be sent"
            )
    except PayloadError as error:
        raise _Refusal(trouble(error)) from error
    data = text.encode(errors="surrogatepass")
    view.tally.add(len(data))
    return "value.json", Held(data)


class _Sending(StreamingResponse):
    """A download, which gives its place back and writes its line however it ends."""

    def __init__(self, source: Source, view: View, **answer: Any) -> None:
        super().__init__(source.pieces(), **answer)
        self._view = view

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send everything, or as much as the client takes."""
        is_whole = False
        try:
            await super().__call__(scope, receive, self._watched(send))
            is_whole = self._is_whole
        except PayloadError as error:
            # The head is sent: all that can be done is to break off before the length that it states.
            self._view.failed(error)
            raise
        finally:
            _downloads.give_back()
            if not is_whole and self._view.outcome == "sent":
                self._view.outcome = "broken off"
            self._view.write()

    _is_whole = False

    def _watched(self, send: Any) -> Any:
        async def watched(message: Any) -> None:
            await send(message)
            self._is_whole = message["type"] == "http.response.body" and not message.get("more_body")

        return watched


def _image(request: Request, user: GetUserDep, key: str, part: str = "") -> Response:
    """Send a payload that is a picture, by its first bytes and with a fixed type; nothing else."""
    ids = _ids(request, 4)
    with View("xcom payload picture sent", user, ids, key, "sent") as view:
        _check(request, user, ids)
        row = _row(ids, key)
        if row.reference is None or row.reference.codec not in ("bytes", "tagged-json"):
            raise HTTPException(404, _NO_PICTURE)
        try:
            with _views.one():
                data = _picture(row, ids, part, view)
        except (PayloadError, ViewTimeoutError) as error:
            raise _Refusal(trouble(error)) from error
        kind = blob.image_type(data[:16])
        if kind is None:
            raise HTTPException(404, _NO_PICTURE)
        return Response(
            data, media_type=kind, headers={**_FILE, "content-disposition": "inline; filename=picture"}
        )


def _picture(row: Row, ids: Ids, part: str, view: View) -> bytes:
    """Read a payload, or the part of a bundle; a bundle is taken apart by the process that decodes."""
    assert row.reference is not None
    source = _opened(row, ids, view)
    start, size = 0, source.size
    if row.reference.codec == "tagged-json":
        shown = inspect(
            source, {"codec": "tagged-json", "version": row.reference.codec_version, "part": part}
        ).shown
        if shown.get("kind") != "blob":
            raise HTTPException(404, _NO_PICTURE)
        start, size = shown.get("span", (0, -1))
        if type(start) is not int or type(size) is not int or not 0 <= start <= start + size <= source.size:
            raise HTTPException(404, "The payload has no such part.")
    if size > limits.IMAGE_BYTES:
        raise PayloadTooLargeError(f"the picture is {size:,} bytes; up to {limits.IMAGE_BYTES:,} are shown")
    return source.read(start, start + size)


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
    # JSON knows lone surrogates, which no encoding does.
    text = replace(page, nonce=nonce).render().encode(errors="backslashreplace")
    return HTMLResponse(text, status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    """Say in words why there is no page."""
    assert isinstance(error, StarletteHTTPException)
    if isinstance(error, _Refusal):
        said = error.said
        return _message(request, said.status, said.title, f"{said.happened.rstrip('.')}. {said.advice}")
    titles = {
        401: ("You are not logged in", "Log in to Airflow in this browser, then open this page again."),
        403: (
            "You may not read XComs of this Dag",
            "Ask whoever manages access in this Airflow for the permission to read XComs of this Dag.",
        ),
        404: ("Nothing here", str(error.detail)),
    }
    title, advice = titles.get(error.status_code, ("This did not work", str(error.detail)))
    return _message(request, error.status_code, title, advice)


async def _misspelt(request: Request, error: Exception) -> Response:
    """Say which of the query's values are of the wrong kind."""
    assert isinstance(error, RequestValidationError)
    names = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
    advice = f"The address does not say in a form that is understood: {names}. Go back, and follow a link."
    return _message(request, 422, "This address is misspelt", advice)


async def _busy(request: Request, error: Exception) -> Response:
    advice = "Many payloads are being looked at just now. Try again in a few seconds."
    return _message(request, 503, "Busy", advice)


async def _failed(request: Request, error: Exception) -> Response:
    """Answer what nobody thought of; the server writes the traceback to its log."""
    advice = "The log of the API server says more. Try again; if it stays so, report what stands there."
    return _message(request, 500, "The viewer has failed", advice)


def _message(request: Request, status: int, title: str, advice: str) -> Response:
    if "/object/" in request.scope["path"]:
        text = f"{title}. {advice}\n".encode(errors="backslashreplace")
        return PlainTextResponse(text, status, {**_QUIET, "content-security-policy": _SANDBOX})
    return _html(pages.message(root=_root(request), title=title, advice=advice), status)
