"""GCSStore before a real fake-gcs-server, with the network's faults in between."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("airflow", reason="needs Airflow: pip install 'apache-airflow>=3'")

import fault_proxy as faults
from fault_proxy import FaultProxy
from include.xcom import payloads, stores
from include.xcom.errors import (
    PayloadCorruptError,
    PayloadError,
    PayloadExistsError,
    PayloadMissingError,
    ReferenceNotAllowedError,
    StoreUnavailableError,
)
from include.xcom.reference import PayloadReference
from include.xcom.settings import Settings, load_settings
from include.xcom.stores import Stored, retries
from include.xcom.stores import bucket as gcs

PROJECT = Path(gcs.__file__).parents[2]

# The generated project has the contract; what is in it holds here too.
_SPEC = importlib.util.spec_from_file_location(
    "contract", Path(__file__).parents[1] / "core" / "test_stores.py"
)
contract: Any = importlib.util.module_from_spec(_SPEC)  # type: ignore[arg-type]
_SPEC.loader.exec_module(contract)  # type: ignore[union-attr]
reference_to = contract.reference_to

NAME = "xcom/dag/run/task/-1/return_value/0.bin"
BODY = bytes(range(256)) * 200
SECONDS = 2.5
# Between the end of the time limit and the error: what the machine itself needs when it is busy.
GRACE_SECONDS = 1.0


@pytest.fixture
def proxy(gcs_server: Any) -> Iterator[FaultProxy]:
    """A proxy before the server, without faults."""
    with FaultProxy(gcs_server.url) as proxy:
        yield proxy


@pytest.fixture
def seconds() -> float:
    """The store's time limit; tests override it with a parameter."""
    return SECONDS


@pytest.fixture
def store(
    proxy: FaultProxy, gcs_server: Any, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> gcs.GCSStore:
    """The test's bucket, behind the proxy, with short waits."""
    monkeypatch.setattr(retries, "_FIRST_WAIT_SECONDS", 0.05)
    return store_at(proxy.url, gcs_server.bucket, monkeypatch, seconds)


def store_at(
    url: str, bucket: str, monkeypatch: pytest.MonkeyPatch, seconds: float = SECONDS
) -> gcs.GCSStore:
    """Return a store of a bucket at an emulator's URL."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    return gcs.GCSStore(bucket, Settings(bucket=bucket, timeout_seconds=seconds))


def existing(gcs_server: Any) -> PayloadReference:
    """Put an object straight into the bucket; return a reference to it."""
    generation = gcs_server.write(NAME, BODY)
    crc32c = stores.checksum([BODY])
    reference: PayloadReference = reference_to(
        Stored(f"gs://{gcs_server.bucket}/{NAME}", generation, len(BODY), crc32c)
    )
    return reference


class TestContract(contract.StoreContract):  # type: ignore[misc]
    """What every store promises."""

    @pytest.fixture
    def store(self, gcs_server: Any, monkeypatch: pytest.MonkeyPatch) -> gcs.GCSStore:
        """An empty bucket."""
        return store_at(gcs_server.url, gcs_server.bucket, monkeypatch, seconds=10)


def test_put_and_get_take_one_request_each(store: gcs.GCSStore, proxy: FaultProxy) -> None:
    """No look before the write, none before the read, and one connection for both."""
    stored = store.put(NAME, [BODY])
    payload = store.get(reference_to(stored))

    assert bytes(payload) == BODY
    assert [request[0] for request in proxy.requests] == ["POST", "GET"]
    assert proxy.connections == 1


def test_put_asks_the_server_to_refuse_what_it_must(store: gcs.GCSStore, proxy: FaultProxy) -> None:
    """Cloud Storage is told never to overwrite, and which checksum to expect."""
    store.put(NAME, [b"123456789"])

    _, target, headers = proxy.requests[0]
    assert "ifGenerationMatch=0" in target
    assert headers["x-goog-hash"] == "crc32c=4waSgw=="
    assert headers["content-length"] == "9"


YESTERDAY = format_datetime(datetime.now(timezone.utc) + timedelta(days=-1), usegmt=True)
TOMORROW = format_datetime(datetime.now(timezone.utc) + timedelta(days=1), usegmt=True)

PUT_RECOVERIES = {
    "429": ([faults.answer(429)], "HTTP 429 Too Many Requests"),
    "429-with-seconds": ([faults.answer(429, retry_after="1")], "HTTP 429"),
    "429-with-a-past-date": ([faults.answer(429, retry_after=YESTERDAY)], "HTTP 429"),
    "429-with-nonsense": ([faults.answer(429, retry_after="soon")], "HTTP 429"),
    "408": ([faults.answer(408)], "HTTP 408"),
    "503-burst": ([faults.answer(503)] * 4, "HTTP 503 Service Unavailable"),
    "500-502-504": ([faults.answer(500), faults.answer(502), faults.answer(504)], "HTTP 504"),
    "reset-before-the-answer": ([faults.reset], "Connection aborted"),
    "reset-within-the-upload": ([faults.reset_in_request], "Connection"),
    "lost-response": ([faults.lose_response], "Connection aborted"),
    "lost-response-then-503": ([faults.lose_response, faults.answer(503)], "HTTP 503"),
    "lost-response-twice": ([faults.lose_response, faults.lose_response], "Connection aborted"),
    "cut-answer": ([faults.cut_answer], "IncompleteRead"),
    "reset-within-the-answer": ([faults.reset_in_answer], "Connection broken"),
    "garbage-answer": ([faults.garble_answer], "not a resource of the API"),
    "flipped-bit": ([faults.flip_upload], "the server received CRC32C [0-9a-f]{8} .*was sent"),
    "flipped-bit-seen-by-the-server": (
        [faults.answer(400, b'{"error": {"message": "Provided CRC32C does not match"}}')],
        "the server received another CRC32C than was sent",
    ),
    "black-hole": ([faults.black_hole], "timed out"),
    "upload-that-stalls": ([faults.stop_reading], "timed out"),
}


@pytest.mark.parametrize(("planned", "logged"), PUT_RECOVERIES.values(), ids=PUT_RECOVERIES)
@pytest.mark.parametrize("seconds", [6])
def test_put_with_a_passing_fault_stores_one_object(
    store: gcs.GCSStore,
    proxy: FaultProxy,
    gcs_server: Any,
    caplog: pytest.LogCaptureFixture,
    planned: list[faults.Fault],
    logged: str,
) -> None:
    """One object with the right bytes, a reference that reads it, and a warning for each wait."""
    body = BODY if logged != "timed out" else BODY * 400
    proxy.plan(*planned, method="POST")

    with caplog.at_level(logging.WARNING, "include.xcom"):
        stored = store.put(NAME, [body])

    assert gcs_server.names() == [NAME]
    assert gcs_server.read(NAME) == body
    assert bytes(store.get(reference_to(stored))) == body
    warnings = [
        record.getMessage() for record in caplog.records if record.name == "include.xcom.stores.retries"
    ]
    assert len(warnings) == len(planned)
    assert re.search(rf"Could not store gs://.*{logged}.*Retrying in [0-9.]+ s", warnings[-1])


def test_put_flipped_bit_and_failed_clean_up_still_stores_one_object(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """The damaged object is removed at the next try, though its name is taken then."""
    proxy.plan(faults.flip_upload, method="POST")
    proxy.plan(faults.answer(503), method="DELETE")

    stored = store.put(NAME, [BODY])

    assert gcs_server.names() == [NAME]
    assert bytes(store.get(reference_to(stored))) == BODY


def test_put_repeated_where_another_object_came_first_is_refused(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """A repeated try that finds somebody else's object does not take it for its own."""
    gcs_server.write(NAME, b"theirs")
    proxy.plan(faults.reset, method="POST")

    with pytest.raises(PayloadExistsError, match=rf"gs://{gcs_server.bucket}/{NAME} exists already"):
        store.put(NAME, [BODY])

    assert gcs_server.read(NAME) == b"theirs"


def test_put_object_that_vanishes_after_a_refusal_is_stored(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """412, and then nothing there: somebody deleted it in between, and the name is free."""
    proxy.plan(faults.reset, faults.answer(412), method="POST")

    store.put(NAME, [BODY])

    assert gcs_server.read(NAME) == BODY


GET_RECOVERIES = {
    "429-with-seconds": ([faults.answer(429, retry_after="1")], "HTTP 429"),
    "503-burst": ([faults.answer(503)] * 4, "HTTP 503"),
    "reset-before-the-answer": ([faults.reset], "Connection aborted"),
    "reset-within-the-body": ([faults.reset_in_answer], "the response broke off after [0-9]+ bytes"),
    "cut-body": ([faults.cut_answer], "the response broke off after [0-9]+ bytes"),
    "flipped-bit": ([faults.flip_download], "CRC32C [0-9a-f]{8} arrived, and the server sent"),
    "black-hole": ([faults.black_hole], "timed out"),
    "partial-content": (
        [faults.edit_head(b"200 OK", b"206 Partial Content")],
        "HTTP 206 was not asked for",
    ),
}


@pytest.mark.parametrize(("planned", "logged"), GET_RECOVERIES.values(), ids=GET_RECOVERIES)
@pytest.mark.parametrize("seconds", [6])
def test_get_with_a_passing_fault_returns_the_value(
    store: gcs.GCSStore,
    proxy: FaultProxy,
    gcs_server: Any,
    caplog: pytest.LogCaptureFixture,
    planned: list[faults.Fault],
    logged: str,
) -> None:
    """The right bytes, and a warning for each wait."""
    reference = existing(gcs_server)
    proxy.plan(*planned)

    with caplog.at_level(logging.WARNING, "include.xcom"):
        payload = store.get(reference)

    assert bytes(payload) == BODY
    warnings = [
        record.getMessage() for record in caplog.records if record.name == "include.xcom.stores.retries"
    ]
    assert len(warnings) == len(planned)
    assert re.search(rf"Could not read gs://.*{logged}.*Retrying in [0-9.]+ s", warnings[-1])


@pytest.mark.parametrize("seconds", [20])
def test_get_from_a_slow_server_returns_the_value(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """Slow is not dead: bytes that keep coming are waited for, up to the time limit."""
    reference = existing(gcs_server)
    proxy.plan(faults.drip(0.01, size=512))

    assert bytes(store.get(reference)) == BODY
    assert proxy.count() == 1


# What is planned for all requests, the error, and what its message says.
FAILURES: dict[str, tuple[faults.Fault, type[PayloadError], str]] = {
    "400": (
        faults.answer(400, b'{"error": {"message": "Invalid argument."}}'),
        StoreUnavailableError,
        r"^HTTP 400 Invalid argument\. The request needs storage\.objects\.\w+; retrying will not help",
    ),
    "401": (
        faults.answer(401),
        StoreUnavailableError,
        r"^The credentials are not accepted. Check connection '.*' \(\[gcs_xcom\] conn_id\)",
    ),
    "403": (
        faults.answer(403, b'{"error": {"message": "xcom@acme does not have access."}}'),
        StoreUnavailableError,
        (
            r"^storage\.objects\.(create|get) is missing on gs://test-bucket.* Grant it, .*"
            r"--role=roles/storage.objectUser --member=user:xcom@acme\. .*HTTP 403 xcom@acme does not"
        ),
    ),
    "404-bucket": (
        faults.answer(404, b'{"error": {"message": "The specified bucket does not exist."}}'),
        StoreUnavailableError,
        r"^gs://test-bucket-\w+ does not exist\. Create it: gcloud storage buckets create gs://test-bucket",
    ),
    "404-bucket-as-text": (
        faults.answer(404, b"The specified bucket does not exist.", content_type="text/plain"),
        StoreUnavailableError,
        r"^gs://test-bucket-\w+ does not exist\. Create it",
    ),
    "413": (faults.answer(413), StoreUnavailableError, r"Lower \[gcs_xcom\] max_payload_bytes.* HTTP 413"),
    "redirect": (
        faults.answer(302, location="http://login.acme.example/?secret=1"),
        StoreUnavailableError,
        r"redirects to http://login\.acme\.example/, which the storage API never does.* HTTP 302",
    ),
    "429-for-an-hour": (
        faults.answer(429, retry_after="3600"),
        StoreUnavailableError,
        r"^HTTP 429.* after 1 tries .*the next retry, in 3600\.\d s, would exceed 2\.5 s \(\[gcs_xcom\] timeout_sec",
    ),
    "429-until-tomorrow": (
        # urllib3 reads six hours at most out of such a header.
        faults.answer(429, retry_after=TOMORROW),
        StoreUnavailableError,
        r"^HTTP 429.* after 1 tries .*the next retry, in 21600\.\d s",
    ),
    "500": (faults.answer(500), StoreUnavailableError, r"^HTTP 500.*\d+ tries in "),
    "503": (
        faults.answer(503),
        StoreUnavailableError,
        r"^HTTP 503 .*can be reached from here.*\d+ tries in ",
    ),
    "reset": (faults.reset, StoreUnavailableError, r"Connection aborted.*\d+ tries in "),
    "black-hole": (faults.black_hole, StoreUnavailableError, r"timed out.*\d tries in "),
    "head-that-drips": (
        faults.drip(0.3, head_too=True),
        StoreUnavailableError,
        r"Connection aborted.*after 1 tries in [23]\.\d s",
    ),
}
PUT_FAILURES = {
    **FAILURES,
    "garbage-answer": (
        faults.answer(200, b"[]"),
        StoreUnavailableError,
        r"^the response is not a resource of the API",
    ),
    "empty-answer": (
        faults.answer(204),
        StoreUnavailableError,
        r"^the response is not a resource of the API",
    ),
    "answer-that-drips": (
        faults.drip(0.3),
        StoreUnavailableError,
        r"the time is up.*after 1 tries in [23]\.\d s",
    ),
    "flipped-bit": (
        faults.flip_upload,
        StoreUnavailableError,
        r"altered in transit: .*CRC32C.* 3 times in a row\. Look for a proxy",
    ),
}
GET_FAILURES = {
    **FAILURES,
    "404-object": (
        faults.not_found,
        PayloadMissingError,
        rf"no such object or generation \(HTTP 404 No such object: test-bucket-\w+/{NAME}\)",
    ),
    "cut-body": (faults.cut_answer, StoreUnavailableError, r"the response broke off after \d+ bytes"),
    "body-that-drips": (faults.drip(0.3), StoreUnavailableError, r"the time is up.*after 1 tries"),
    "flipped-bit": (
        faults.flip_download,
        StoreUnavailableError,
        r"altered in transit: CRC32C \w{8} arrived.* 3 times",
    ),
    "other-page": (faults.garble_answer, PayloadCorruptError, r"is 13 bytes long, and 51200 were written"),
}


def raised_within(seconds: float, kind: type[PayloadError], call: Any, *arguments: Any) -> PayloadError:
    """Call; return the error it raises, of exactly this kind and in time."""
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert time.monotonic() - started < seconds + GRACE_SECONDS
    assert type(caught.value) is kind
    return caught.value


@pytest.mark.parametrize(("fault", "kind", "said"), PUT_FAILURES.values(), ids=PUT_FAILURES)
def test_put_with_a_lasting_fault_ends_in_time_and_says_why(
    store: gcs.GCSStore,
    proxy: FaultProxy,
    gcs_server: Any,
    fault: faults.Fault,
    kind: type[PayloadError],
    said: str,
) -> None:
    """What, where and what next; and never a second object."""
    proxy.plan(fault, always=True)

    error = raised_within(SECONDS, kind, store.put, NAME, [BODY])

    assert re.search(said, str(error), re.DOTALL)
    assert f"gs://{gcs_server.bucket}/{NAME}" in str(error)
    assert error.uri == f"gs://{gcs_server.bucket}/{NAME}"
    assert gcs_server.names() in ([], [NAME])


@pytest.mark.parametrize(("fault", "kind", "said"), GET_FAILURES.values(), ids=GET_FAILURES)
def test_get_with_a_lasting_fault_ends_in_time_and_says_why(
    store: gcs.GCSStore,
    proxy: FaultProxy,
    gcs_server: Any,
    fault: faults.Fault,
    kind: type[PayloadError],
    said: str,
) -> None:
    """What and what next, never a wrong value; the object stays."""
    reference = existing(gcs_server)
    proxy.plan(fault, always=True)

    error = raised_within(SECONDS, kind, store.get, reference)

    assert re.search(said, str(error), re.DOTALL)
    assert error.uri == reference.uri
    assert gcs_server.names() == [NAME]


def test_put_upload_that_stalls_for_good_ends_in_time(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """A server that stops reading is given up, though it keeps the connection."""
    proxy.plan(faults.stop_reading, always=True)

    error = raised_within(SECONDS, StoreUnavailableError, store.put, NAME, [bytes(40_000_000)])

    assert "timed out" in str(error)
    assert gcs_server.names() == []


@pytest.mark.parametrize("verb", ["put", "get", "delete"])
def test_refused_connection_ends_in_time_and_names_the_endpoint(
    verb: str, gcs_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens: the address is in the message."""
    reference = existing(gcs_server)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = store_at(f"127.0.0.1:{port}", gcs_server.bucket, monkeypatch)
    calls = {
        "put": (store.put, NAME, [BODY]),
        "get": (store.get, reference),
        "delete": (store.delete, reference.uri, reference.generation),
    }

    error = raised_within(SECONDS, StoreUnavailableError, *calls[verb])

    assert re.search(
        rf"NewConnectionError.*refused.*Check that http://127\.0\.0\.1:{port} can be reached", str(error)
    )


@pytest.mark.parametrize("host", ["http://[::1", "http://a b"])
def test_malformed_endpoint_is_named_at_once(
    host: str, gcs_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typo in STORAGE_EMULATOR_HOST is not tried again until the time is up."""
    with pytest.raises(StoreUnavailableError, match="Check STORAGE_EMULATOR_HOST"):
        store_at(host, gcs_server.bucket, monkeypatch).put(NAME, [BODY])


def test_get_other_generation_is_missing(store: gcs.GCSStore, gcs_server: Any) -> None:
    """An object that replaced ours under its name is not handed out as ours."""
    reference = existing(gcs_server)
    gcs_server.write(NAME, BODY[::-1])

    with pytest.raises(PayloadMissingError, match="no such object or generation"):
        store.get(reference)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the test's object for one that is read in ranges: five of them, of 10,240 bytes each."""
    monkeypatch.setattr(gcs, "_LEAST_BYTES_IN_RANGES", 20_480)


@pytest.mark.usefixtures("large")
def test_get_of_a_large_object_takes_several_connections_at_once(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """Each carries a range of its own, and serves again afterwards."""
    reference = existing(gcs_server)
    proxy.latency_seconds = 0.05

    assert bytes(store.get(reference)) == BODY
    first = proxy.connections
    assert bytes(store.get(reference)) == BODY

    ranges = {headers["range"] for _, _, headers in proxy.requests}
    assert ranges == {f"bytes={start}-{start + 10_239}" for start in range(0, len(BODY), 10_240)}
    assert proxy.count("GET") == 10
    assert proxy.most_in_flight == 5
    assert proxy.connections == first == 5


RANGE_FAULTS = {
    "unavailable": faults.answer(503),
    "reset": faults.reset,
    "reset-in-answer": faults.reset_in_answer,
    "cut-answer": faults.cut_answer,
    "flipped-bit": faults.flip_download,
}


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("fault", RANGE_FAULTS.values(), ids=RANGE_FAULTS.keys())
def test_get_of_a_large_object_with_a_fault_in_one_range_gives_the_payload(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any, fault: Any
) -> None:
    """Only that range is asked for again, or the whole where nobody can say which range it is."""
    reference = existing(gcs_server)
    proxy.plan(fault)

    assert bytes(store.get(reference)) == BODY
    assert proxy.count("GET") == 6


@pytest.mark.usefixtures("large")
def test_get_of_a_large_object_that_is_gone_or_altered_says_so(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """As of a small one, and no half of it is handed on."""
    reference = existing(gcs_server)
    altered = reference._replace(crc32c="00000000")
    with pytest.raises(PayloadCorruptError, match="has another CRC32C than what was written"):
        store.get(altered)
    with pytest.raises(PayloadCorruptError, match="is 51200 bytes long, and 51300 were written"):
        store.get(reference._replace(bytes=len(BODY) + 100))

    store.delete(reference.uri, reference.generation)

    with pytest.raises(PayloadMissingError, match="no such object or generation"):
        store.get(reference)


def test_get_object_altered_in_place_is_corrupt(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """The server says that it has these bytes: asking again would not help, and does not happen."""
    reference = existing(gcs_server)
    generation = gcs_server.write(NAME, BODY[::-1])
    forged = reference._replace(generation=generation)

    with pytest.raises(PayloadCorruptError, match="has another CRC32C than what was written"):
        store.get(forged)

    assert proxy.count() == 1


def test_delete_other_generation_leaves_the_new_object(store: gcs.GCSStore, gcs_server: Any) -> None:
    """Purging an old row cannot remove what was written after it."""
    reference = existing(gcs_server)
    gcs_server.write(NAME, b"newer")

    assert store.delete(reference.uri, reference.generation) is False
    assert gcs_server.read(NAME) == b"newer"


def test_delete_without_permission_says_which(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """As for reading and writing."""
    reference = existing(gcs_server)
    message = "xcom@acme.iam.gserviceaccount.com does not have storage.objects.delete access to the object."
    proxy.plan(faults.answer(403, json.dumps({"error": {"message": message}}).encode()))

    with pytest.raises(StoreUnavailableError, match=r"^storage\.objects\.delete is missing"):
        store.delete(reference.uri, reference.generation)


def test_delete_with_a_lost_response_succeeds(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """The repeated request finds nothing, which is what was wanted."""
    reference = existing(gcs_server)
    proxy.plan(faults.lose_response)

    assert store.delete(reference.uri, reference.generation) is False
    assert gcs_server.names() == []


@pytest.mark.parametrize("seconds", [60])
def test_waits_grow_differ_and_stay_within_the_limit(
    store: gcs.GCSStore,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Half of the wait is chance, so that a thousand tasks do not return together."""
    waits: list[float] = []
    monkeypatch.setattr(retries, "_FIRST_WAIT_SECONDS", 0.5)
    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic))
    proxy.plan(*[faults.answer(503)] * 8, method="POST")

    with caplog.at_level(logging.WARNING, "include.xcom"):
        store.put(NAME, [BODY])

    for number, wait in enumerate(waits):
        longest = min(20, 0.5 * 2**number)
        assert longest / 2 <= wait <= longest
    assert len(waits) == 8
    assert len({round(wait / (0.5 * 2**number), 6) for number, wait in enumerate(waits[:5])}) > 1
    assert f"Retrying in {waits[-1]:.1f} s" in caplog.messages[-1]


@pytest.mark.parametrize("seconds", [60])
def test_waits_are_as_long_as_the_server_asks(
    store: gcs.GCSStore, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retry-After is the least, in seconds or as a date."""
    waits: list[float] = []
    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic))
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=20), usegmt=True)
    proxy.plan(faults.answer(429, retry_after="7"), faults.answer(503, retry_after=date), method="POST")

    store.put(NAME, [BODY])

    assert 7 < waits[0] < 8
    assert 17 < waits[1] < 21


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_child_has_sockets_of_its_own(
    proxy: FaultProxy, gcs_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that stores after its parent did opens a connection, and the parent's goes on working."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", gcs_server.bucket)
    load_settings.cache_clear()
    stores.own_store().put("xcom/parent", [BODY])
    before = proxy.connections

    child = os.fork()
    if child == 0:
        status = 1
        try:
            stores.own_store().put("xcom/child", [BODY])
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    stores.own_store().put("xcom/parent-again", [BODY])

    assert proxy.connections == before + 1
    assert gcs_server.names() == ["xcom/child", "xcom/parent", "xcom/parent-again"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_child_is_not_stopped_by_a_lock_of_its_parent(
    gcs_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of the parent that is opening a store at the time of the fork does not exist in the child."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", gcs_server.bucket)
    load_settings.cache_clear()
    load_settings()
    held, done, parent = threading.Event(), threading.Event(), os.getpid()

    def open_slowly(bucket: str, settings: Settings) -> gcs.GCSStore:
        if os.getpid() == parent:
            held.set()
            done.wait()
        return original(bucket, settings)

    original = gcs.GCSStore
    monkeypatch.setattr(gcs, "GCSStore", open_slowly)
    thread = threading.Thread(target=stores.own_store)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        worker = threading.Thread(target=lambda: stores.own_store().put("xcom/child", [BODY]), daemon=True)
        worker.start()
        worker.join(5)
        os._exit(int(worker.is_alive()))
    status = os.waitpid(child, 0)[1]
    done.set()
    thread.join()

    assert status == 0
    assert gcs_server.names() == ["xcom/child"]


class TestLoadMany:
    """Rows of mapped task instances, loaded side by side."""

    CONCURRENCY = 16

    @pytest.fixture(autouse=True)
    def deployment(self, proxy: FaultProxy, gcs_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A deployment with the test's bucket behind the proxy."""
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__BUCKET", gcs_server.bucket)
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__TIMEOUT_SECONDS", "10")
        monkeypatch.setenv("AIRFLOW__GCS_XCOM__CONCURRENCY", str(self.CONCURRENCY))
        load_settings.cache_clear()

    @staticmethod
    def rows(count: int) -> list[Any]:
        """Store values in parallel; return their rows."""
        from include.xcom.reference import Coordinates

        def store(index: int) -> Any:
            return payloads.store(b"%d" % index * 1000, Coordinates("d", "r", "t", index, "return_value"))

        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(store, range(count)))

    def test_values_come_in_order_and_faster_than_one_by_one(self, proxy: FaultProxy) -> None:
        """64 objects, each 20 ms away, take less than a third of the serial time."""
        rows = self.rows(64)
        proxy.latency_seconds = 0.02
        proxy.most_in_flight = 0
        proxy.requests.clear()

        started = time.monotonic()
        serial = [payloads.load(row) for row in rows]
        between = time.monotonic()
        values = payloads.load_many(rows)
        ended = time.monotonic()

        assert values == serial == [b"%d" % index * 1000 for index in range(64)]
        assert ended - between < (between - started) / 3
        assert 2 <= proxy.most_in_flight <= self.CONCURRENCY
        assert proxy.count("GET") == 128

    def test_first_error_in_row_order_is_raised_and_the_rest_is_cancelled(
        self, proxy: FaultProxy, gcs_server: Any
    ) -> None:
        """Two objects are gone: the earlier row counts, though it may be the later answer."""
        rows = self.rows(200)
        for index in (3, 5):
            row = rows[index]["__data__"]
            stores.store_of(row["uri"]).delete(row["uri"], row["generation"])
        proxy.latency_seconds = 0.02
        proxy.requests.clear()

        with pytest.raises(PayloadMissingError, match=r"map_index 3\)") as caught:
            payloads.load_many(rows)

        assert caught.value.index == 3
        assert proxy.count("GET") < 100

    def test_threads_share_one_store(self, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first payloads of a process do not open a pool, and fetch a token, for each thread."""
        rows = self.rows(40)
        opened: list[str] = []
        original = gcs.GCSStore

        def open_counted(bucket: str, settings: Settings) -> gcs.GCSStore:
            opened.append(bucket)
            return original(bucket, settings)

        monkeypatch.setattr(gcs, "GCSStore", open_counted)
        stores.forget_stores()
        before = proxy.connections
        proxy.latency_seconds = 0.02

        payloads.load_many(rows)

        assert proxy.connections - before <= self.CONCURRENCY
        assert len(opened) == 1

    def test_row_with_an_unprintable_uri_is_refused(self) -> None:
        """JSON knows lone surrogates, names do not."""
        uri = f"{load_settings().root}\ud800"

        with pytest.raises(ReferenceNotAllowedError, match=r"\\ud800 is outside") as caught:
            stores.store_of(uri)

        str(caught.value).encode()


READ_IN_THREADS = """
import re, sys
from pathlib import Path
from threading import Thread
from include.xcom.stores import own_store

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024

store = own_store()
stored = store.put("range", [b"x" * (48 << 20)])
store.read(stored, 0, 1)
before = resident()
for size in (20, 24, 28, 30):
    threads = [Thread(target=store.read, args=(stored, 0, size << 20)) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
print(resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's memory")
def test_memory_of_ranges_goes_back_to_the_system(gcs_server: Any) -> None:
    """Whatever threads of a library read them: a table that is streamed is larger than memory."""
    done = subprocess.run(
        [sys.executable, "-c", READ_IN_THREADS],
        env=os.environ
        | {
            "AIRFLOW__GCS_XCOM__BUCKET": gcs_server.bucket,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "STORAGE_EMULATOR_HOST": gcs_server.url,
        },
        capture_output=True,
        text=True,
        check=True,
    )

    assert int(done.stdout) < 30
