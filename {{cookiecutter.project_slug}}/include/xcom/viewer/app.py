"""The viewer's pages and files, as an application that Airflow's API server mounts.

Airflow's own auth manager checks each request for the right to read XComs of exactly the Dag that the
path names. The ids are in the path, the rest is in the query::

    instance/{dag_id}/{run_id}/{task_id}/{map_index}?key=...   XComs of a task instance, one of them opened
    run/{dag_id}/{run_id}                                      all XComs of a Dag run with their sizes
    history/{dag_id}/{task_id}?key=...                         one XCom over the last runs, or as JSON
    compare/{dag_id}/{task_id}/{map_index}?key=...             one XCom in two runs
    object/{dag_id}/{run_id}/{task_id}/{map_index}?key=...     one payload as a download
    image/{dag_id}/{run_id}/{task_id}/{map_index}?key=...      one payload that is an image
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from ..errors import PayloadError, PayloadTooLargeError, ReferenceNotAllowedError
from ..reference import Coordinates
from ..units import format_size
from . import answers, blobs, history, limits, pages, rows
from .ids import Ids, read_ids
from .inspector import inspect
from .messages import message_for, no_xcom
from .pages import Comparison, Opened
from .pipe import Question
from .rows import Row
from .sources import InMemory, Source, open_source
from .views import Throttle, View

__all__ = ["make_app"]

_FILES = Path(__file__).parent / "templates"
_INSTANCE = ("dag_id", "run_id", "task_id", "map_index")
_NO_KEY = "This task instance has no XCom with this key: it has not pushed it, or the XCom was deleted."
_NO_IMAGE = "This XCom is not an image."
# Codecs of values that may be one, or have one as a part.
_WITH_IMAGES = ("bytes", "file", "items", "tagged-json")
VIEWS = Throttle(limits.VIEWS_AT_ONCE)
DOWNLOADS = Throttle(limits.DOWNLOADS_AT_ONCE)


def make_app() -> FastAPI:
    """Make the application; opens nothing."""
    app = FastAPI(title="Payload viewer", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/viewer.css", lambda: _file("viewer.css", "text/css"), methods=["GET"])
    app.add_api_route("/viewer.js", lambda: _file("viewer.js", "text/javascript"), methods=["GET"])
    app.add_api_route("/instance/{ids:path}", _instance, methods=["GET"])
    app.add_api_route("/run/{ids:path}", _run, methods=["GET"])
    app.add_api_route("/history/{ids:path}", _history, methods=["GET"])
    app.add_api_route("/compare/{ids:path}", _compare, methods=["GET"])
    app.add_api_route("/object/{ids:path}", _object, methods=["GET"])
    app.add_api_route("/image/{ids:path}", _image, methods=["GET"])
    answers.add_error_handlers(app)
    return app


def _check(request: Request, user: Any, ids: Ids) -> None:
    """Let Airflow's auth manager decide whether the user may read XComs of the Dag.

    Raises:
        HTTPException: 403.
    """
    requires_access_dag("GET", DagAccessEntity.XCOM, ids.dag_id)(request, user)


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
    sort: str = "",
    contains: str = "",
) -> Response:
    """Show the XComs of a task instance, one of them opened."""
    ids = read_ids(request, *_INSTANCE)
    question = Question(
        "", part=part, row=max(row, 0), column=max(column, 0), start=max(start, 0), whole=whole,
        index=_numbers(index),
    )  # fmt: skip
    with View("xcom payload viewed", user, ids, key) as view:
        _check(request, user, ids)
        found = rows.of_instance(ids)
        row_opened = next((one for one in found if one.key == key), None if key else next(iter(found), None))
        if key and row_opened is None:
            raise HTTPException(404, _NO_KEY)
        opened = empty = past = None
        if row_opened is None:
            view.outcome = "no XComs"
            empty = no_xcom(rows.instance_of(ids))
        else:
            view.key = row_opened.key
            opened = _opened(row_opened, ids, question, view)
            one = None if ids.map_index < 0 else ids.map_index
            past = history.read_history(ids, row_opened.key, runs=limits.HISTORY_RUNS[0], map_index=one)
        page = pages.instance(
            root=answers.root_of(request),
            ids=ids,
            rows=[one for one in found if contains.lower() in one.key.lower()],
            opened=opened,
            empty=empty or "",
            query={"sort": sort, "contains": contains},
            past=past,
        )
        return answers.html(page)


def _run(request: Request, user: GetUserDep, sort: str = "", contains: str = "") -> Response:
    """Show all XComs of a Dag run with their sizes, the largest first."""
    ids = read_ids(request, "dag_id", "run_id")
    with View("xcom payloads listed", user, ids) as view:
        _check(request, user, ids)
        listing = rows.of_run(ids, contains)
        view.rows = len(listing.rows)
        root = answers.root_of(request)
        return answers.html(pages.run(root=root, ids=ids, listing=listing, sort=sort, contains=contains))


def _history(
    request: Request,
    user: GetUserDep,
    key: str = "return_value",
    runs: int = limits.HISTORY_RUNS[0],
    map_index: str = "",
) -> Response:
    """Show one XCom over the last runs of its Dag; reads nothing from the store."""
    ids = read_ids(request, "dag_id", "task_id")
    runs = max(1, min(runs, max(limits.HISTORY_RUNS)))
    index = int(map_index) if map_index.isdecimal() and len(map_index) < 10 else None
    with View("xcom history viewed", user, ids, key) as view:
        _check(request, user, ids)
        past = history.read_history(ids, key, runs=runs, map_index=index)
        view.rows = len(past.points)
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(past.to_json(), headers=answers.QUIET)
        root = answers.root_of(request)
        keys = history.read_keys(ids, past.points)
        page = pages.history(root=root, ids=ids, key=key, runs=runs, map_index=index, past=past, keys=keys)
        return answers.html(page)


def _compare(
    request: Request, user: GetUserDep, first: str, second: str, key: str = "return_value", column: int = 0
) -> Response:
    """Show one XCom in two runs of its Dag."""
    ids = read_ids(request, "dag_id", "task_id", "map_index")
    with View("xcom payloads compared", user, ids, key) as view:
        _check(request, user, ids)
        sides = []
        for run_id in (first, second):
            of_run = ids._replace(run_id=run_id)
            row = _row(of_run, key)
            sides.append(_opened(row, of_run, Question("", column=max(column, 0)), view))
        page = pages.compare(
            root=answers.root_of(request), ids=ids, key=key, runs=[first, second], column=max(column, 0),
            comparison=Comparison.of(*sides),
        )  # fmt: skip
        return answers.html(page)


def _numbers(index: list[str]) -> list[int]:
    """Read the position of a slice: one number for each axis, or several with commas between them."""
    numbers = ",".join(index[:32]).split(",")[:32]
    return [int(one) if one.isdecimal() and len(one) < 12 else 0 for one in numbers]


def _row(ids: Ids, key: str) -> Row:
    for row in rows.of_instance(ids):
        if row.key == key:
            return row
    raise HTTPException(404, _NO_KEY)


def _source(row: Row, ids: Ids, view: View) -> Source:
    """Open what a row refers to or holds.

    Raises:
        PayloadError: See ``open_source``; or the row is malformed, or its value too long to show.
    """
    if row.reference is not None:
        return open_source(row.reference, Coordinates(*ids, row.key), view.tally)
    if row.problem:
        raise ReferenceNotAllowedError(row.problem)
    text = rows.with_text(row, ids.dag_id).text
    if text is None:
        raise PayloadTooLargeError(f"the database row holds {format_size(row.characters)} of JSON")
    data = text.encode(errors="surrogatepass")
    view.tally.add(len(data))
    return InMemory(data)


def _opened(row: Row, ids: Ids, question: Question, view: View) -> Opened:
    """Describe what a row refers to or holds, or say why that cannot be shown."""
    try:
        with VIEWS.admitted():
            source = _source(row, ids, view)
            shown = inspect(source, _question_of(row, question))
    except PayloadError as error:
        view.fail(error)
        return Opened(row, question.part, message=message_for(error))
    return Opened(row, question.part, shown, source.checked)


def _question_of(row: Row, question: Question) -> Question:
    if row.reference is None:
        return replace(question, codec="json")
    codec, version = row.reference.codec, row.reference.codec_version
    return replace(question, codec=codec, version=version, facts=row.reference.facts)


# ---------------------------------------------------------------------------------------------- files


def _object(request: Request, user: GetUserDep, key: str) -> Response:
    """Send one payload as it is stored, under its own name; a browser never opens it."""
    ids = read_ids(request, *_INSTANCE)
    with View("xcom payload downloaded", user, ids, key, "sent") as view:
        _check(request, user, ids)
        row = _row(ids, key)
        DOWNLOADS.acquire()
        try:
            source = _source(row, ids, view)
        except BaseException as error:
            DOWNLOADS.release()
            raise answers.refusal(error) from error
        # From here on the answer leaves the throttle and writes the line of the log.
        view.is_streaming = True
        name = row.reference.uri.rpartition("/")[2] if row.reference else "value.json"
        if row.reference and row.reference.codec == "file":
            name = str(row.summary.get("name", name)) + (".zip" if "files" in row.summary else "")
        disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        headers = {**answers.FILE, "content-length": str(source.size), "content-disposition": disposition}
        return _Download(source, view, headers)


class _Download(StreamingResponse):
    """A download that leaves the throttle and writes its line of the log however it ends."""

    def __init__(self, source: Source, view: View, headers: dict[str, str]) -> None:
        super().__init__(source.pieces(), media_type="application/octet-stream", headers=headers)
        self._view = view
        self._size = source.size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or as much as the client takes."""
        sent = 0

        async def counting(message: Message) -> None:
            nonlocal sent
            await send(message)
            sent += len(message.get("body", b""))

        try:
            await super().__call__(scope, receive, counting)
        except PayloadError as error:
            # The head is sent: all that is left is to stop before the length that it states.
            self._view.fail(error)
            raise
        finally:
            DOWNLOADS.release()
            # By bytes: a client that has them all may be gone before the message that ends the answer.
            if sent < self._size and self._view.outcome == "sent":
                self._view.outcome = "broken off"
            self._view.write()


def _image(request: Request, user: GetUserDep, key: str, part: str = "") -> Response:
    """Send a payload that is an image, judged by its first bytes, with a fixed type; nothing else."""
    ids = read_ids(request, *_INSTANCE)
    with View("xcom payload image sent", user, ids, key, "sent") as view:
        _check(request, user, ids)
        row = _row(ids, key)
        if row.reference is None or row.reference.codec not in _WITH_IMAGES:
            raise HTTPException(404, _NO_IMAGE)
        try:
            with VIEWS.admitted():
                data = _image_bytes(row, ids, part, view)
        except PayloadError as error:
            raise answers.refusal(error) from error
        kind = blobs.image_type(data[:16])
        if kind is None:
            raise HTTPException(404, _NO_IMAGE)
        disposition = {"content-disposition": "inline; filename=image"}
        return Response(data, media_type=kind, headers={**answers.FILE, **disposition})


def _image_bytes(row: Row, ids: Ids, part: str, view: View) -> bytes:
    """Read a payload, or the member of a zip file that the child process finds."""
    assert row.reference is not None
    source = _source(row, ids, view)
    start, size = 0, source.size
    if part or row.reference.codec == "tagged-json":
        shown = inspect(source, _question_of(row, Question("", part=part)))
        start, size = shown.get("span", (0, -1))
        if shown.get("kind") != "blob":
            raise HTTPException(404, _NO_IMAGE)
        if type(start) is not int or type(size) is not int or not 0 <= start <= start + size <= source.size:
            raise HTTPException(404, "The payload has no such part.")
    if size > limits.IMAGE_BYTES:
        raise PayloadTooLargeError(
            f"the image is {format_size(size)}; the limit is {format_size(limits.IMAGE_BYTES)}"
        )
    return source.read(start, start + size)


def _file(name: str, kind: str) -> Response:
    headers = {**answers.QUIET, "cache-control": "no-cache"}
    return Response((_FILES / name).read_bytes(), media_type=f"{kind}; charset=utf-8", headers=headers)
