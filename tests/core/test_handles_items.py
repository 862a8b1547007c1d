"""``Items``: a list of which a mapped task fetches the piece that it needs."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from include.xcom import File, Items, payloads, settings
from include.xcom.errors import (
    PayloadCorruptError,
    PayloadMissingError,
    PayloadTooLargeError,
    UnsupportedTypeError,
)
from include.xcom.reference import Coordinates, PayloadReference
from include.xcom.stores import DirectoryStore, Stored

HERE = Coordinates("sales", "manual__1", "load", -1, "return_value")


def push(value: Any) -> Any:
    """Return the row of a value, as the database keeps it."""
    return json.loads(json.dumps(payloads.store(value, HERE)))


def handed_on(value: Any) -> Any:
    """Return what the next task gets."""
    return payloads.load(push(value))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the ranges that are read of any object."""
    lengths: list[int] = []
    read = DirectoryStore.read

    def counting(self: DirectoryStore, stored: Stored, start: int, stop: int, **options: Any) -> memoryview:
        lengths.append(stop - start)
        return read(self, stored, start, stop, **options)

    monkeypatch.setattr(DirectoryStore, "read", counting)
    return lengths


RECORDS = [{"id": number, "name": f"name {number}"} for number in range(5000)]


@pytest.mark.parametrize(
    "iterable",
    [
        pytest.param(lambda: RECORDS, id="list"),
        pytest.param(lambda: iter(RECORDS), id="iterator"),
        pytest.param(list, id="empty"),
        pytest.param(lambda: iter(()), id="empty-iterator"),
        pytest.param(lambda: range(3000), id="range"),
        pytest.param(lambda: (number**30 for number in range(300)), id="large-integers"),
        pytest.param(lambda: [None, True, 1.5, "text", (1, 2), {3}, b"bytes", [], {}], id="mixed"),
        pytest.param(lambda: [bytes(100_000), b"", bytes(10)], id="bytes"),
    ],
)
def test_items_come_back_equal_and_of_equal_type(iterable: Any) -> None:
    """By index, from the end, in a slice, in a loop."""
    expected = list(iterable())
    items = handed_on(Items(iterable()))

    assert isinstance(items, Sequence)
    assert len(items) == len(expected)
    assert list(items) == expected
    assert [type(item) for item in items] == [type(item) for item in expected]
    for place in {0, len(expected) // 2, len(expected) - 1} if expected else ():
        assert items[place] == expected[place]
        assert items[place - len(expected)] == expected[place]
    assert items[1:7:2] == expected[1:7:2]
    assert items[::-1][:3] == expected[::-1][:3]
    for place in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError, match="is not an index of Items"):
            items[place]


def test_frames_and_arrays_are_items() -> None:
    """Each is fetched alone, in its own format."""
    frames = [pd.DataFrame({"a": range(number)}) for number in range(1, 4)]
    items = handed_on(Items(frame for frame in frames))

    pd.testing.assert_frame_equal(items[1], frames[1])
    assert [len(frame) for frame in items] == [1, 2, 3]
    assert handed_on(Items([np.arange(5)]))[0].tolist() == [0, 1, 2, 3, 4]


def test_row_tells_the_length_and_nothing_is_read_for_it(reads: list[int]) -> None:
    """Airflow asks for the length in every mapped task, and prints the list while it renders templates."""
    row = push(Items(RECORDS))
    reference = PayloadReference.from_row(row)
    assert reference is not None
    assert (reference.type, reference.codec, reference.summary["items"]) == ("Items", "items", 5000)
    items = payloads.load(row)

    assert len(items) == 5000
    assert repr(items) == str(items) == "Items(5000 items)"
    assert copy.deepcopy(items) == pickle.loads(pickle.dumps(items)) == items
    assert not callable(items)
    assert not isinstance(items, (list, tuple))
    assert not hasattr(items, "serialize")
    assert reads == []


def test_one_item_takes_two_requests_and_a_thousandth_of_the_list(reads: list[int]) -> None:
    """A thousand mapped tasks read the list about once in all, not a thousand times."""
    generator = random.Random(7)
    values = [{"key": number, "data": generator.randbytes(4000).hex()} for number in range(1000)]
    row = push(Items(values))
    size = row["__data__"]["bytes"]

    read = 0
    for place in range(0, 1000, 50):
        reads.clear()
        assert payloads.load(row)[place] == values[place]
        assert len(reads) <= 2
        read += sum(reads)
    assert read * 50 <= 2 * size


def test_neighbours_are_read_once(reads: list[int]) -> None:
    """A task that goes through part of the list by index makes one request for each piece."""
    items = handed_on(Items(RECORDS))

    assert [items[place]["id"] for place in range(2000)] == list(range(2000))
    assert len(reads) < 30


def test_a_loop_streams_in_few_requests(reads: list[int]) -> None:
    """Pieces are small, and the ranges that are read ahead are not."""
    items = handed_on(Items({"n": number, "text": str(number) * 20} for number in range(50_000)))

    assert sum(1 for _ in items) == 50_000
    assert len(reads) < 12


def test_iterator_is_consumed_when_the_handle_is_made() -> None:
    """Airflow needs the length before it stores the list; a second key gets the same items."""
    consumed = []

    def numbers() -> Iterator[int]:
        for number in range(10):
            consumed.append(number)
            yield number

    items = Items(numbers())

    assert consumed == list(range(10))
    assert (len(items), items[3], items[-1], list(items)) == (10, 3, 9, list(range(10)))
    assert list(handed_on(items)) == list(handed_on(items)) == list(range(10))
    assert list(pickle.loads(pickle.dumps(items))) == list(range(10))


def test_files_are_items(tmp_path: Path, payload_folder: Path) -> None:
    """They are attachments of the list; a purge of its row deletes them."""
    paths = [tmp_path / f"{number}.txt" for number in range(3)]
    for path in paths:
        path.write_text(path.name)

    for iterable in (
        lambda: ({"file": File(path)} for path in paths),
        lambda: [File(path) for path in paths],
    ):
        row = push(Items(iterable()))
        items = payloads.load(row)
        file = items[1]["file"] if isinstance(items[1], dict) else items[1]

        assert file.path.read_text() == "1.txt"
        assert row["__data__"]["attachments"] == 3
        payloads.purge(row)
        assert [path for path in payload_folder.rglob("*") if path.is_file()] == []


def test_list_that_is_returned_again_has_files_of_its_own(tmp_path: Path, payload_folder: Path) -> None:
    """Also after the first XCom was purged; without files it is one copy in the store."""
    path = tmp_path / "a.txt"
    path.write_text("text")
    first = push(Items([File(path), 1]))

    again = handed_on(payloads.load(first))
    payloads.purge(first)

    assert again[0].path.read_text() == "text"
    assert again[1] == 1
    second = push(Items(RECORDS))
    assert list(handed_on(payloads.load(second))) == RECORDS


def test_list_inside_a_value_is_an_attachment(tmp_path: Path) -> None:
    """With its own files."""
    path = tmp_path / "a.txt"
    path.write_text("text")
    row = push({"parts": Items([File(path)]), "n": 1})

    value = payloads.load(row)

    assert value["parts"][0].path.read_text() == "text"
    assert row["__data__"]["attachments"] == 2


@pytest.mark.parametrize("make", [list, iter], ids=["list", "iterator"])
def test_item_that_cannot_be_stored_is_named(make: Any, payload_folder: Path) -> None:
    """By its place in the list, not in a piece of it."""
    values = [*range(100), {"x": object()}]

    with pytest.raises(UnsupportedTypeError) as caught:
        push(Items(make(values)))

    assert "[100]['x']" in caught.value.path
    assert re.search(r"Cannot store object at \w+(\[0\])?\[100\]\['x'\]: ", str(caught.value))
    assert [path for path in payload_folder.rglob("*") if path.is_file()] == []


def test_error_of_the_iterator_is_raised_as_it_is() -> None:
    """It is the task's own."""

    def failing() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("in the task")

    with pytest.raises(ZeroDivisionError, match="in the task"):
        Items(failing())


def test_item_over_the_limit_is_refused_when_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader could not load it."""
    monkeypatch.setenv("AIRFLOW__GCS_XCOM__MAX_PAYLOAD_BYTES", "1000")
    settings.load_settings.cache_clear()

    with pytest.raises(PayloadTooLargeError, match=r"Items 1 to 1 are .*max_payload_bytes"):
        push(Items([b"", bytes(2000)]))


@pytest.mark.parametrize("value", ["text", b"bytes", {"a": 1}, 5], ids=lambda value: type(value).__name__)
def test_what_is_no_list_is_refused_at_the_door(value: Any) -> None:
    """A dict or a text is iterable, and hardly what is meant."""
    with pytest.raises(TypeError):
        Items(value)


@pytest.mark.parametrize("place", [6, 40, -30])
def test_damaged_byte_is_noticed_wherever_it_is(place: int, payload_folder: Path) -> None:
    """Pieces and the index have checksums of their own, since neither is read with the rest."""
    items = handed_on(Items([bytes(range(256))]))
    (path,) = [path for path in payload_folder.rglob("*") if path.is_file()]
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)

    with pytest.raises(PayloadCorruptError, match=r"not what was written.*sales\.load"):
        items[0]
    with pytest.raises(PayloadCorruptError, match="not what was written"):
        list(items)


def test_list_whose_object_was_purged_says_so() -> None:
    """Its length is still known."""
    row = push(Items(RECORDS))
    items = payloads.load(row)
    payloads.purge(row)

    assert len(items) == 5000
    with pytest.raises(PayloadMissingError, match="is gone"):
        items[0]
    with pytest.raises(PayloadMissingError, match="is gone"):
        next(iter(items))


@pytest.mark.once
def test_full_disk_is_an_error_that_names_the_directory(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk; a new process, since it cannot be taken back."""
    code = (
        "import os, resource, signal\n"
        "from include.xcom import Items\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))\n"
        "Items(os.urandom(1_000_000) for _ in range(20))\n"
    )
    environment = {**os.environ, "AIRFLOW__GCS_XCOM__TEMPORARY_DIRECTORY": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )

    assert f"TemporarySpaceError: A temporary file cannot be written in {tmp_path}" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "payloads"]


def test_error_of_the_disk_in_the_iterator_is_the_iterator_s(tmp_path: Path) -> None:
    """It is not taken for one of the temporary file."""
    with pytest.raises(FileNotFoundError):
        Items((tmp_path / name).read_bytes() for name in ("none",))


def test_list_is_read_on_by_a_parent_and_its_fork() -> None:
    """A task may fork in the middle of a loop: neither waits for threads of the other."""
    items = handed_on(Items(bytes([number]) * 100_000 for number in range(200)))
    loop = iter(items)
    assert [next(loop)[0] for _ in range(50)] == list(range(50))

    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if [one[0] for one in loop] == list(range(50, 200)) else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert [one[0] for one in loop] == list(range(50, 200))


def test_list_whose_object_goes_in_the_middle_says_so(payload_folder: Path) -> None:
    """What was read ahead comes, then an error, never a shorter list."""
    items = handed_on(Items(os.urandom(1_000_000) for _ in range(100)))
    loop = iter(items)
    next(loop)
    (path,) = (path for path in payload_folder.rglob("*.items"))
    path.unlink()

    with pytest.raises(PayloadMissingError, match="is gone"):
        for _ in loop:
            pass
