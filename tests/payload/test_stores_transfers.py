"""Large objects of GCSStore: parts that the server composes, ranges, copies, and what goes wrong with them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="needs Airflow: pip install 'apache-airflow>=3'")

import fault_proxy as faults
from fault_proxy import FaultProxy
from include.xcom import stores
from include.xcom.errors import (
    PayloadCorruptError,
    PayloadExistsError,
    PayloadMissingError,
    StoreUnavailableError,
)
from include.xcom.reference import PayloadReference
from include.xcom.settings import Settings
from include.xcom.stores import Stored, is_part, retries
from include.xcom.stores import bucket as gcs

NAME = "xcom/dag/run/task/-1/return_value/0.bin"
PART = 1000
BODY = bytes(range(256)) * 40  # 10,240 bytes: eleven parts of a stream, eight of bytes
SECONDS = 3.0
COMPOSE = "/compose?"


@pytest.fixture
def proxy(gcs_server: Any) -> Iterator[FaultProxy]:
    """A proxy before the server, which honours conditions as Cloud Storage does."""
    with FaultProxy(gcs_server.url) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy, gcs_server: Any, monkeypatch: pytest.MonkeyPatch) -> gcs.GCSStore:
    """The test's bucket, with parts of a kilobyte and short waits."""
    monkeypatch.setattr(retries, "_FIRST_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(gcs, "_LEAST_BYTES_IN_PARTS", 10_000)
    monkeypatch.setattr(gcs, "_LEAST_BYTES_IN_RANGES", 2_000)
    monkeypatch.setattr(gcs, "_STREAM_PART_BYTES", PART)
    monkeypatch.setattr(gcs, "_DOWNLOAD_RANGE_BYTES", PART)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    return gcs.GCSStore(gcs_server.bucket, Settings(bucket=gcs_server.bucket, timeout_seconds=SECONDS))


@pytest.fixture
def strict(proxy: FaultProxy) -> None:
    """Conditions of compose and rewrite hold, behind the faults that a test plans later."""
    proxy.default = lambda exchange: (
        faults.as_cloud_storage(exchange)
        if COMPOSE in exchange.target or "/rewriteTo/" in exchange.target
        else faults.through(exchange)
    )


def stream(store: gcs.GCSStore, body: bytes = BODY) -> Stored:
    """Store a body as a stream of uneven chunks."""
    return store.put_stream(NAME, (body[start : start + 333] for start in range(0, len(body), 333)))


def reference_to(stored: Stored) -> PayloadReference:
    """Return a reference to an object."""
    size = stored.size
    return PayloadReference(stored.uri, "bytes", size, size, "bytes", 1, stored.crc32c, stored.generation)


WAYS = {"put": lambda store: store.put(NAME, [BODY[:5000], BODY[5000:]]), "put_stream": stream}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_large_object_is_sent_in_parts_and_composed_once(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any, way: Any
) -> None:
    """Several at a time, joined by one request that may not replace anything; only the object is left."""
    proxy.latency_seconds = 0.05

    stored = way(store)

    assert gcs_server.read(NAME) == BODY
    assert gcs_server.names() == [NAME]
    assert (stored.size, stored.crc32c) == (len(BODY), stores.checksum([BODY]))
    assert bytes(store.get(reference_to(stored))) == BODY
    uploads = [target for verb, target, _ in proxy.requests if verb == "POST" and "/upload/" in target]
    assert len(uploads) == (8 if way is WAYS["put"] else 11)
    assert proxy.count("POST", COMPOSE) == 1
    assert proxy.count("DELETE") == len(uploads)
    assert "ifGenerationMatch=0" in next(target for _, target, _ in proxy.requests if COMPOSE in target)
    assert proxy.most_in_flight == 8


def test_stream_of_many_parts_is_composed_in_levels(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """The server joins 32 at most; every part goes as soon as it was used."""
    body = BODY * 11  # 113 parts
    stored = stream(store, body)

    assert gcs_server.read(NAME) == body
    assert gcs_server.names() == [NAME]
    assert stored.crc32c == stores.checksum([body])
    # Three times 32, and then 3 with the 17 that are left.
    assert proxy.count("POST", COMPOSE) == 4
    assert proxy.count("DELETE") == 116


@pytest.mark.parametrize("parts", [31, 32, 33, 63, 64, 65, 1024, 1056])
def test_levels_hold_at_every_edge(
    store: gcs.GCSStore, gcs_server: Any, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One part more or less than a level takes: nothing is lost, doubled or out of order."""
    monkeypatch.setattr(gcs, "_STREAM_PART_BYTES", 4)
    body = b"".join(number.to_bytes(4, "big") for number in range(parts))

    stored = store.put_stream(NAME, [body])

    assert gcs_server.read(NAME) == body
    assert gcs_server.names() == [NAME]
    assert stored.crc32c == stores.checksum([body])


def test_short_stream_takes_one_request(store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any) -> None:
    """No parts where there is one."""
    seen: list[int] = []

    store.put_stream(NAME, iter([BODY[:400], BODY[400:PART]]), progress=seen.append)

    assert gcs_server.read(NAME) == BODY[:PART]
    assert [verb for verb, _, _ in proxy.requests] == ["POST"]
    assert seen == [PART]


def test_stream_reports_what_has_arrived(store: gcs.GCSStore) -> None:
    """Never backwards, and all of it at the end."""
    seen: list[int] = []

    store.put_stream(NAME, [BODY], progress=seen.append)

    assert seen == sorted(seen)
    assert seen[-1] == len(BODY)


def test_stream_is_read_no_further_than_it_is_sent(store: gcs.GCSStore, proxy: FaultProxy) -> None:
    """Memory is bounded: eight parts on their way, one that waits, and one that fills up."""
    ahead = []
    proxy.latency_seconds = 0.02

    def chunks() -> Iterator[bytes]:
        for number in range(30):  # Fewer than are composed while others are sent.
            answered = proxy.count("POST", "/upload/") - proxy.in_flight
            ahead.append(number - answered)
            yield bytes(PART)

    store.put_stream(NAME, chunks())

    # The proxy takes a part for answered as late as its own thread does.
    assert max(ahead) <= 8 + 2 + 2


PART_FAULTS = {
    "unavailable": faults.answer(503),
    "reset": faults.reset,
    "cut-in-the-middle": faults.reset_in_request,
    "lost-response": faults.lose_response,
    "flipped-bit": faults.flip_upload,
    "garbage-answer": faults.garble_answer,
}


@pytest.mark.parametrize("fault", PART_FAULTS.values(), ids=PART_FAULTS)
def test_part_that_fails_is_sent_again_alone(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any, fault: faults.Fault
) -> None:
    """Not the whole: one upload more than there are parts."""
    proxy.plan(fault, path="/upload/")

    stored = stream(store)

    assert gcs_server.read(NAME) == BODY
    assert stored.crc32c == stores.checksum([BODY])
    assert gcs_server.names() == [NAME]
    assert proxy.count("POST", "/upload/") == 12


COMPOSE_FAULTS = {
    "unavailable": faults.answer(503),
    "reset": faults.reset,
    "lost-response": faults.lose_response,
    "cut-answer": faults.cut_answer,
    "garbage-answer": faults.garble_answer,
    "too-many": faults.answer(429, retry_after="0"),
}


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("fault", COMPOSE_FAULTS.values(), ids=COMPOSE_FAULTS)
def test_compose_that_fails_is_asked_again(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any, fault: faults.Fault
) -> None:
    """A 412 then may be our own success, so what is there is compared."""
    proxy.plan(fault, path=COMPOSE)

    stored = stream(store)

    assert bytes(store.get(reference_to(stored))) == BODY
    assert gcs_server.names() == [NAME]
    assert proxy.count("POST", COMPOSE) == 2
    assert proxy.count("POST", "/upload/") == 11


@pytest.mark.usefixtures("strict")
def test_compose_over_an_object_that_is_there_is_refused(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """The first one stays, and no part is left."""
    gcs_server.write(NAME, b"theirs")

    with pytest.raises(PayloadExistsError, match=f"{NAME} exists already and was not overwritten"):
        stream(store)

    assert gcs_server.read(NAME) == b"theirs"
    assert gcs_server.names() == [NAME]
    assert proxy.count("POST", COMPOSE) == 1


@pytest.mark.usefixtures("strict")
def test_compose_repeated_over_somebody_else_s_object_is_refused(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """A repeated request that finds another object does not take it for its own."""

    def reset_and_write(exchange: faults.Exchange) -> None:
        gcs_server.write(NAME, b"theirs")
        faults.reset(exchange)

    proxy.plan(reset_and_write, path=COMPOSE)

    with pytest.raises(PayloadExistsError, match="exists already"):
        stream(store)

    assert gcs_server.read(NAME) == b"theirs"


def test_compose_that_gives_another_checksum_leaves_nothing(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """The checksum of the whole, computed from the parts', is compared; three tries and no more."""
    proxy.plan(faults.edit_body(b'"crc32c":"', b'"crc32c":"AAAA'), path=COMPOSE, always=True)

    with pytest.raises(
        StoreUnavailableError, match=r"altered in transit: the server received CRC32C .* 3 times"
    ):
        stream(store)

    assert gcs_server.names() == []
    assert proxy.count("POST", COMPOSE) == 3


@pytest.mark.parametrize("is_strict", [True, False], ids=["answered-404", "answered-500"])
def test_part_that_vanishes_is_an_error_at_once(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any, is_strict: bool
) -> None:
    """fake-gcs-server answers 500, which is not repeated for as long as another 500."""

    def delete_a_part(exchange: faults.Exchange) -> None:
        name = next(name for name in gcs_server.names() if is_part(name))
        gcs_server.delete(name)
        (faults.as_cloud_storage if is_strict else faults.through)(exchange)

    proxy.plan(delete_a_part, path=COMPOSE)

    with pytest.raises(
        StoreUnavailableError, match=r"^A part of the upload was deleted .*\.part-000\d\d"
    ) as caught:
        stream(store)

    assert is_part(str(caught.value.uri).partition("/xcom/")[2])
    assert gcs_server.names() == []
    assert proxy.count("POST", COMPOSE) == 1


@pytest.mark.parametrize("number", [0, 1, 4000, 9999])
@pytest.mark.parametrize(
    "error", [ZeroDivisionError("in the source"), KeyboardInterrupt()], ids=["error", "interrupt"]
)
def test_source_that_fails_leaves_nothing(
    store: gcs.GCSStore, gcs_server: Any, number: int, error: BaseException
) -> None:
    """Its own error is raised, wherever it happens, and neither object nor part is left."""

    def chunks() -> Iterator[bytes]:
        yield BODY[:number]
        raise error

    with pytest.raises(type(error)):
        store.put_stream(NAME, chunks())

    assert gcs_server.names() == []


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param(faults.answer(503), "HTTP 503 Service Unavailable", id="unavailable"),
        pytest.param(faults.black_hole, "timed out", id="black-hole"),
        pytest.param(faults.flip_upload, "altered in transit", id="flipped-bits"),
    ],
)
def test_parts_that_go_on_failing_end_in_time_and_leave_nothing(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any, way: Any, fault: faults.Fault, said: str
) -> None:
    """Of several failures the first is raised; the limit holds for each part, and they run at once."""
    proxy.plan(*[faults.through] * 3, path="/upload/")
    proxy.plan(fault, path="/upload/", always=True)
    started = time.monotonic()

    with pytest.raises(StoreUnavailableError, match=said):
        way(store)

    assert time.monotonic() - started < 2 * SECONDS + 1
    assert gcs_server.names() == []


def test_upload_that_moves_is_not_late(store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any) -> None:
    """Longer than the time limit in all, but no part is."""
    proxy.latency_seconds = 0.6
    started = time.monotonic()

    stream(store, BODY * 5)

    assert time.monotonic() - started > SECONDS
    assert gcs_server.read(NAME) == BODY * 5


def test_source_that_is_slow_is_waited_for(
    store: gcs.GCSStore, gcs_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for the store; a producer may take its time."""

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(BODY), PART):
            time.sleep(0.35)
            yield BODY[start : start + PART]

    store.put_stream(NAME, chunks())

    assert gcs_server.read(NAME) == BODY


def test_parts_that_cannot_be_deleted_are_logged_and_known(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The object is there, so the task goes on; the sweep and the doctor know the parts by their names."""
    message = "Object 'x' is subject to bucket's retention policy and cannot be deleted"
    refusal = faults.answer(403, json.dumps({"error": {"message": message}}).encode())
    proxy.plan(refusal, method="DELETE", always=True)

    with caplog.at_level(logging.WARNING, "include.xcom"):
        stored = stream(store)

    assert bytes(store.get(reference_to(stored))) == BODY
    left = [name for name in gcs_server.names() if name != NAME]
    assert len(left) == 11
    assert all(is_part(name) for name in left)
    assert caplog.text.count("Parts of an upload remain in the bucket until the sweep deletes them") == 1
    assert "A retention policy of gs://test-bucket" in caplog.text


@pytest.mark.parametrize("started", [0, 3])
def test_thread_that_cannot_be_started_is_an_error_that_leaves_nothing(
    started: int, store: gcs.GCSStore, gcs_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container with a low limit of processes: no wait, no part."""
    left = iter(range(started))

    class Limited(threading.Thread):
        def start(self) -> None:
            if self.name.startswith(("part", "delete")) and next(left, None) is None:
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr("concurrent.futures.thread.threading.Thread", Limited)

    with pytest.raises(StoreUnavailableError, match="one of them cannot be started: can't start new thread"):
        stream(store)
    monkeypatch.undo()
    assert gcs_server.names() == []


def test_uploads_to_one_name_share_no_part(store: gcs.GCSStore, gcs_server: Any, proxy: FaultProxy) -> None:
    """One wins; without a server that honours the condition the later one, never a mixture."""
    bodies = [bytes([number]) * len(BODY) for number in range(3)]
    threads = [threading.Thread(target=store.put_stream, args=(NAME, [body])) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert gcs_server.read(NAME) in bodies
    assert gcs_server.names() == [NAME]


# ------------------------------------------------------------------------------------------------ copies


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(
    "fault", [faults.answer(503), faults.reset, faults.lose_response, faults.garble_answer, faults.cut_answer]
)
def test_copy_that_fails_is_asked_again(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any, fault: faults.Fault
) -> None:
    """As a write is: a repeated request may find its own success."""
    source = store.put("xcom/source", [b"abc"])
    proxy.plan(fault, path="/rewriteTo/")

    copied = store.copy(source, NAME)

    assert bytes(store.get(reference_to(copied))) == b"abc"
    assert copied == store.describe(copied.uri)
    assert proxy.count("POST", "/rewriteTo/") == 2


@pytest.mark.usefixtures("strict")
def test_copy_over_an_object_that_is_there_is_refused(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """The first one stays."""
    source = store.put("xcom/source", [b"abc"])
    gcs_server.write(NAME, b"theirs")

    with pytest.raises(PayloadExistsError, match=f"{NAME} exists already"):
        store.copy(source, NAME)

    assert gcs_server.read(NAME) == b"theirs"


def test_copy_that_takes_several_requests_goes_on_with_the_token(
    store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any
) -> None:
    """Cloud Storage copies large objects across storage classes piece by piece."""
    source = store.put("xcom/source", [b"abc"])
    for token in ("one/two", "three"):
        text = json.dumps({"done": False, "rewriteToken": token, "totalBytesRewritten": "1"})
        proxy.plan(faults.answer(200, text.encode()), path="/rewriteTo/")

    copied = store.copy(source, NAME)

    targets = [target for _, target, _ in proxy.requests if "/rewriteTo/" in target]
    assert [target.partition("rewriteToken=")[2] for target in targets] == ["", "one%2Ftwo", "three"]
    assert all(f"sourceGeneration={source.generation}&ifGenerationMatch=0" in target for target in targets)
    assert bytes(store.get(reference_to(copied))) == b"abc"


def test_copy_of_an_object_that_was_replaced_is_missing(store: gcs.GCSStore, gcs_server: Any) -> None:
    """Only the generation that the reference names is copied."""
    source = store.put("xcom/source", [b"abc"])
    gcs_server.write("xcom/source", b"other")

    with pytest.raises(PayloadMissingError, match="no such object or generation"):
        store.copy(source, NAME)

    assert gcs_server.names() == ["xcom/source"]


def test_copy_moves_no_bytes_through_the_process(store: gcs.GCSStore, proxy: FaultProxy) -> None:
    """One request without a body, whatever the size."""
    source = store.put("xcom/source", [bytes(9000)])
    proxy.requests.clear()

    store.copy(source, NAME)

    assert [(verb, headers.get("content-length")) for verb, _, headers in proxy.requests] == [("POST", "0")]


# ----------------------------------------------------------------------------------------------- reading


def test_download_writes_the_object_in_ranges(store: gcs.GCSStore, proxy: FaultProxy, tmp_path: Path) -> None:
    """Eight at a time; the file is the object."""
    stored = stream(store)
    proxy.requests.clear()
    proxy.latency_seconds = 0.05
    seen: list[int] = []

    store.download(stored, tmp_path / "file", progress=seen.append)

    assert (tmp_path / "file").read_bytes() == BODY
    assert proxy.count("GET") == 11
    assert proxy.most_in_flight == 8
    assert seen == sorted(seen)
    assert seen[-1] == len(BODY)


@pytest.mark.parametrize(
    "fault",
    [faults.answer(503), faults.reset, faults.reset_in_answer, faults.cut_answer],
    ids=["unavailable", "reset", "reset-in-answer", "cut-answer"],
)
def test_range_that_fails_is_read_again_alone(
    store: gcs.GCSStore, proxy: FaultProxy, tmp_path: Path, fault: faults.Fault
) -> None:
    """Not the whole."""
    stored = stream(store)
    proxy.requests.clear()
    proxy.plan(fault, method="GET")

    store.download(stored, tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == BODY
    assert proxy.count("GET") == 12


def test_download_with_a_flipped_bit_is_read_once_more(
    store: gcs.GCSStore, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Nobody knows which range it is, so the whole is read, which tells who altered it."""
    stored = stream(store)
    proxy.plan(faults.flip_download, method="GET")

    store.download(stored, tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize(
    ("change", "kind"),
    [({"crc32c": "00000000"}, PayloadCorruptError), ({"generation": "1"}, PayloadMissingError)],
    ids=["other-checksum", "other-generation"],
)
def test_download_that_fails_leaves_no_file(
    store: gcs.GCSStore, tmp_path: Path, change: dict[str, Any], kind: type[Exception]
) -> None:
    """No half of a file that a task could take for the whole."""
    stored = stream(store)

    with pytest.raises(kind):
        store.download(stored._replace(**change), tmp_path / "file")

    assert list(tmp_path.iterdir()) == []


def test_download_that_moves_is_not_late(store: gcs.GCSStore, proxy: FaultProxy, tmp_path: Path) -> None:
    """The limit is for a range."""
    stored = stream(store, BODY * 5)
    proxy.latency_seconds = 0.6
    started = time.monotonic()

    store.download(stored, tmp_path / "file")

    assert time.monotonic() - started > SECONDS
    assert (tmp_path / "file").read_bytes() == BODY * 5


def ignore_range(exchange: faults.Exchange) -> None:
    """Answer with the whole object, as RFC 9110 allows and some proxies do."""
    exchange.headers.pop("range", None)
    faults.through(exchange)


def test_whole_object_in_answer_to_a_range_is_taken_apart(store: gcs.GCSStore, proxy: FaultProxy) -> None:
    """A range is cut out of it, wherever it is."""
    stored = store.put(NAME, [BODY[:9000]])
    proxy.plan(ignore_range, method="GET", always=True)

    for start, stop in [(0, 10), (500, 700), (8990, 9000), (0, 9000), (8000, 99_999)]:
        assert store.read(stored, start, stop) == BODY[start:stop][: max(0, 9000 - start)]


def test_whole_object_in_answer_to_ranges_is_read_once(
    store: gcs.GCSStore, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Not eight times over."""
    stored = stream(store)
    proxy.plan(ignore_range, method="GET", always=True)

    assert bytes(store.get(reference_to(stored))) == BODY
    store.download(stored, tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == BODY
    assert sum("range" not in headers for verb, _, headers in proxy.requests if verb == "GET") >= 2


def test_range_that_is_called_a_whole_is_a_range(store: gcs.GCSStore, proxy: FaultProxy) -> None:
    """Google's testbench answers 200 with a Content-Range where it is told to break the stream."""
    stored = store.put(NAME, [BODY[:9000]])
    proxy.plan(faults.edit_head(b"206 Partial Content", b"200 OK"), method="GET", always=True)

    assert store.read(stored, 500, 700) == BODY[500:700]
    assert bytes(store.get(reference_to(stored))) == BODY[:9000]


def test_object_without_a_size_is_empty(store: gcs.GCSStore, proxy: FaultProxy, gcs_server: Any) -> None:
    """Servers leave out zeros, and the checksum of nothing."""
    proxy.default = faults.edit_body(b'"size":"0",', b"")
    stored = store.put(NAME, [])
    assert (stored.size, stored.crc32c) == (0, "00000000")

    proxy.default = lambda exchange: faults.edit_body(
        *(b'"crc32c":"AAAAAA==",', b"") if exchange.method != "GET" else (b'"size":"0",', b"")
    )(exchange)

    assert store.describe(stored.uri) == stored
    assert [listed.size for page in store.list("xcom/") for listed in page] == [0]
    assert store.put("xcom/other", []).size == 0
    assert bytes(store.get(reference_to(stored))) == b""
