"""Google's retry conformance scenarios, for the requests that this client sends.

The scenarios are those of ``storage/v1/retry_tests.json`` in googleapis/conformance-tests, which
Google's own client libraries pass. Not here: methods that this client never calls, requests without a
precondition (it sends none that need one), and resumable uploads, whose cuts within a body are tried on
its own uploads instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

pytest.importorskip("airflow", reason="needs Airflow: pip install 'apache-airflow>=3'")

import fault_proxy as faults
from fault_proxy import FaultProxy
from include.xcom.errors import StoreUnavailableError
from include.xcom.reference import PayloadReference
from include.xcom.settings import Settings
from include.xcom.stores import Stored, checksum, retries
from include.xcom.stores import bucket as gcs

BODY = bytes(range(256)) * 4096  # 1 MiB
SOURCE = "xcom/source"
NAME = "xcom/new"


class Method(NamedTuple):
    """A method of the API.

    Attributes:
        path: What its requests have in their target.
        call: Calls it through the store.
        is_done: Tells by what it returned, and by what the server then has, whether it worked.
    """

    verb: str
    path: str
    call: Callable[[gcs.GCSStore, Stored], Any]
    is_done: Callable[[Any, Any], bool]


METHODS = {
    "storage.buckets.get": Method(
        "GET", "/b/", lambda store, source: store.bucket_metadata(), lambda found, server: "name" in found
    ),
    "storage.objects.get": Method(
        "GET",
        "/o/",
        lambda store, source: store.describe(source.uri),
        lambda found, server: found.size == len(BODY),
    ),
    "storage.objects.list": Method(
        "GET",
        "/o?",
        lambda store, source: [one.name for page in store.list("xcom/") for one in page],
        lambda found, server: found == [SOURCE],
    ),
    "storage.buckets.patch": Method(
        "PATCH",
        "ifMetagenerationMatch=1",
        lambda store, source: store.update_bucket({"versioning": {"enabled": False}}, "1"),
        lambda found, server: "name" in found,
    ),
    "storage.objects.compose": Method(
        "POST",
        "/compose?ifGenerationMatch=0",
        lambda store, source: store.compose(NAME, [source, source]),
        lambda found, server: server.read(NAME) == BODY * 2 and found.crc32c == checksum([BODY, BODY]),
    ),
    "storage.objects.delete": Method(
        "DELETE",
        "?generation=",
        lambda store, source: store.delete(source.uri, source.generation),
        lambda found, server: found is True and server.names() == [],
    ),
    "storage.objects.insert": Method(
        "POST",
        "ifGenerationMatch=0",
        lambda store, source: store.put(NAME, [BODY]),
        lambda found, server: server.read(NAME) == BODY and found.crc32c == checksum([BODY]),
    ),
    "storage.objects.rewrite": Method(
        "POST",
        "ifGenerationMatch=0",
        lambda store, source: store.copy(source, NAME),
        lambda found, server: server.read(NAME) == BODY and found.crc32c == checksum([BODY]),
    ),
    "storage.objects.get (media)": Method(
        "GET",
        "alt=media",
        lambda store, source: bytes(store.get(reference_to(source))),
        lambda found, server: found == BODY,
    ),
    "storage.objects.get (media, a range)": Method(
        "GET",
        "alt=media",
        lambda store, source: store.read(source, 1000, 900_000),
        lambda found, server: found == BODY[1000:900_000],
    ),
}


def break_after(size: int) -> faults.Fault:
    """Break the connection when so many bytes of the answer's body have gone."""

    def fault(exchange: faults.Exchange) -> None:
        head, body = exchange.forward(exchange.read_body())
        exchange.send(head + body[:size])
        exchange.end()

    return fault


def refuse_after(size: int) -> faults.Fault:
    """Answer 503 when so many bytes of the request's body have come, and close the connection."""

    def fault(exchange: faults.Exchange) -> None:
        exchange.reader.read(size)
        exchange.send(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        exchange.end()

    return fault


INSTRUCTIONS: dict[str, faults.Fault] = {
    "return-400": faults.answer(400),
    "return-401": faults.answer(401),
    "return-408": faults.answer(408),
    "return-503": faults.answer(503),
    "return-reset-connection": faults.reset,
    "return-503-after-256K": refuse_after(256 * 1024),
    "return-broken-stream": break_after(10),
    "return-broken-stream-after-256K": break_after(256 * 1024),
}


@pytest.fixture
def proxy(gcs_server: Any) -> Iterator[FaultProxy]:
    """A proxy before the server."""
    with FaultProxy(gcs_server.url) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy, gcs_server: Any, monkeypatch: pytest.MonkeyPatch) -> gcs.GCSStore:
    """The test's bucket, with short waits."""
    monkeypatch.setattr(retries, "_FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    return gcs.GCSStore(gcs_server.bucket, Settings(bucket=gcs_server.bucket, timeout_seconds=10))


def reference_to(stored: Stored) -> PayloadReference:
    """Return a reference to an object."""
    size = stored.size
    return PayloadReference(stored.uri, "bytes", size, size, "bytes", 1, stored.crc32c, stored.generation)


def plan(store: gcs.GCSStore, proxy: FaultProxy, method: Method, instructions: list[str]) -> Stored:
    """Put the source there, and let requests of a method meet what is instructed."""
    source = store.put(SOURCE, [BODY])
    proxy.requests.clear()
    faulty = [INSTRUCTIONS[name] for name in instructions]
    proxy.plan(*faulty, method=method.verb, path=method.path)
    return source


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "instructions",
    [
        ["return-503", "return-503"],
        ["return-reset-connection", "return-reset-connection"],
        ["return-reset-connection", "return-503"],
    ],
    ids=",".join,
)
def test_idempotent_requests_are_repeated(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any, name: str, instructions: list[str]
) -> None:
    """Scenarios 1 and 2: by themselves, or by their precondition."""
    method = METHODS[name]
    source = plan(store, proxy, method, instructions)

    found = method.call(store, source)

    assert method.is_done(found, gcs_server)
    assert proxy.count(method.verb, method.path) == 3


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("instruction", ["return-400", "return-401"])
def test_errors_that_last_are_not_repeated(
    store: gcs.GCSStore, proxy: FaultProxy, name: str, instruction: str
) -> None:
    """Scenario 5."""
    method = METHODS[name]
    source = plan(store, proxy, method, [instruction])

    with pytest.raises(StoreUnavailableError, match=f"HTTP {instruction[-3:]}") as caught:
        method.call(store, source)

    assert caught.value.status == int(instruction[-3:])
    assert proxy.count(method.verb, method.path) == 1


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "instructions", [["return-503", "return-400"], ["return-reset-connection", "return-401"]], ids=",".join
)
def test_repeating_ends_with_an_error_that_lasts(
    store: gcs.GCSStore, proxy: FaultProxy, name: str, instructions: list[str]
) -> None:
    """Scenario 6."""
    method = METHODS[name]
    source = plan(store, proxy, method, instructions)

    with pytest.raises(StoreUnavailableError, match=f"HTTP {instructions[1][-3:]}"):
        method.call(store, source)

    assert proxy.count(method.verb, method.path) == 2


@pytest.mark.parametrize(
    "instructions",
    [
        ["return-reset-connection", "return-503"],
        ["return-408"],
        ["return-503-after-256K"],
        ["return-503-after-256K", "return-408"],
    ],
    ids=",".join,
)
def test_uploads_survive_cuts_within_the_body(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any, instructions: list[str]
) -> None:
    """Scenario 7, with the upload in one request."""
    method = METHODS["storage.objects.insert"]
    source = plan(store, proxy, method, instructions)

    found = method.call(store, source)

    assert method.is_done(found, gcs_server)
    assert proxy.count("POST") == len(instructions) + 1


@pytest.mark.parametrize("name", [name for name in METHODS if "media" in name])
@pytest.mark.parametrize(
    "instructions",
    [["return-broken-stream", "return-broken-stream"], ["return-broken-stream-after-256K"]],
    ids=",".join,
)
def test_downloads_survive_broken_streams(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any, name: str, instructions: list[str]
) -> None:
    """Scenario 8."""
    method = METHODS[name]
    source = plan(store, proxy, method, instructions)

    found = method.call(store, source)

    assert method.is_done(found, gcs_server)
    assert proxy.count("GET", "alt=media") == len(instructions) + 1
