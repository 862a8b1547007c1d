"""Send pages and errors with their headers: nothing is cached, framed by other sites, or run."""

from __future__ import annotations

import secrets

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from ..errors import PayloadError
from . import pages
from .messages import Message, message_for
from .views import BusyError

__all__ = ["FILE", "QUIET", "add_error_handlers", "html", "refusal", "root_of"]

QUIET = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
_SANDBOX = {"content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'self'"}
FILE = {**QUIET, **_SANDBOX, "content-encoding": "identity"}
"""For downloads. Without an encoding Airflow compresses them and loses their length."""


class _Refused(HTTPException):
    """An error of a payload on its way to ``_http_error``."""

    def __init__(self, message: Message) -> None:
        super().__init__(message.status, message.text)
        self.message = message


def refusal(error: BaseException) -> BaseException:
    """Return the HTTP error for an error of a payload; others as they are."""
    return _Refused(message_for(error)) if isinstance(error, PayloadError) else error


def root_of(request: Request) -> str:
    """Return the path below which the application is mounted."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def html(page: pages.Page, status: int = 200) -> HTMLResponse:
    """Render a page under a policy that runs no script but the viewer's own."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'self'; script-src 'nonce-{nonce}'; img-src 'self' data:; "
        "form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
    )
    # JSON knows lone surrogates, no encoding does.
    text = page.render(nonce).encode(errors="backslashreplace")
    return HTMLResponse(text, status, {**QUIET, "content-security-policy": policy})


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in words, with the headers of a page."""
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_query)
    app.add_exception_handler(BusyError, _busy)
    app.add_exception_handler(Exception, _failed)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, _Refused):
        said = error.message
        return _message(request, said.status, said.title, f"{said.text} {said.advice}")
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"detail": str(error.detail)}, error.status_code, QUIET)
    titles = {
        401: ("You are not logged in", "Log in to Airflow in this browser, then open this page again."),
        403: (
            "You may not read XComs of this Dag",
            "Ask an administrator of this Airflow for permission to read XComs of this Dag.",
        ),
        404: ("Not found", str(error.detail)),
    }
    return _message(request, error.status_code, *titles.get(error.status_code, ("Error", str(error.detail))))


async def _invalid_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    names = ", ".join(f'"{name}"' for name in sorted({str(one["loc"][-1]) for one in error.errors()}))
    return _message(request, 422, "Invalid URL", f"Invalid query parameter {names}. Go back and use a link.")


async def _busy(request: Request, error: Exception) -> Response:
    return _message(request, 503, "Busy", "Too many payloads are open right now. Try again in a few seconds.")


async def _failed(request: Request, error: Exception) -> Response:
    """Answer an unexpected error; the server writes the traceback to its log."""
    advice = "See the API server log. If it keeps failing, report the error from the log."
    return _message(request, 500, "The viewer failed", advice)


def _message(request: Request, status: int, title: str, text: str) -> Response:
    if "/object/" in request.scope["path"]:
        plain = f"{title}. {text}\n".encode(errors="backslashreplace")
        return PlainTextResponse(plain, status, {**QUIET, **_SANDBOX})
    return html(pages.message(root=root_of(request), title=title, text=text), status)
