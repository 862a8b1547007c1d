"""What every store promises, asked of a directory and of Cloud Storage as fake-gcs-server."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
from include.xcom.errors import PayloadCorruptError, PayloadExistsError, PayloadMissingError
from include.xcom.reference import PayloadReference
from include.xcom.settings import Settings
from include.xcom.stores import Buffer, DirectoryStore, Store, Stored, checksum, is_part, pieces


def reference_to(stored: Stored) -> PayloadReference:
    """Return a reference as the backend makes it."""
    return PayloadReference(
        uri=stored.uri,
        type="bytes",
        bytes=stored.size,
        raw_bytes=stored.size,
        codec="raw",
        codec_version=1,
        crc32c=stored.crc32c,
        generation=stored.generation,
    )


def names(store: Store) -> list[str]:
    """Return the names of all objects of a store, parts included."""
    return [listed.name for page in store.list("") for listed in page]


class StoreContract:
    """Tests of any store; a subclass gives the fixture ``store``, empty."""

    @pytest.mark.parametrize(
        "parts",
        [
            pytest.param([b"abc"], id="one-part"),
            pytest.param([b"ab", bytearray(b"cd"), memoryview(b"xefx")[1:3]], id="parts-of-each-kind"),
            pytest.param([], id="no-parts"),
            pytest.param([b"", b""], id="empty-parts"),
            pytest.param([bytes(range(256)) * 12_000], id="three-megabytes"),
        ],
    )
    def test_get_what_was_put_is_the_same_bytes(self, store: Store, parts: list[Buffer]) -> None:
        """All parts come back as one, in memory that the reader may write to."""
        stored = store.put("xcom/a", parts)
        payload = store.get(reference_to(stored))

        assert bytes(payload) == b"".join(parts)
        assert stored.size == len(payload)
        assert not payload.readonly

    def test_put_known_bytes_reports_their_checksum(self, store: Store) -> None:
        """CRC32C, of the standard's example."""
        stored = store.put("xcom/a", [b"12345", b"6789"])

        assert (stored.size, stored.crc32c) == (9, "e3069283")
        assert stored.generation.isdigit()
        assert stored.uri.endswith("/xcom/a")

    @pytest.mark.parametrize(
        "name",
        [
            "a%2Fb",
            "%2E%2E/x",
            "a+b c:d@e,f=g",
            "scheduled__2026-11-20T00:00:00+00:00",
            "é/ü",
            "x?y#z&a=b",
            "%00",
        ],
    )
    def test_put_awkward_name_is_kept_apart(self, store: Store, name: str) -> None:
        """Names are data: nothing in them is decoded, joined or cut."""
        stored = store.put(f"xcom/{name}", [b"this"])
        store.put(f"xcom/{name}.other", [b"that"])

        assert bytes(store.get(reference_to(stored))) == b"this"
        assert stored.uri.endswith(f"/xcom/{name}")

    def test_put_name_that_is_taken_is_refused(self, store: Store) -> None:
        """The first object stays as it was."""
        stored = store.put("xcom/a", [b"first"])

        with pytest.raises(PayloadExistsError, match=r"/xcom/a exists already and was not overwritten"):
            store.put("xcom/a", [b"second"])

        assert bytes(store.get(reference_to(stored))) == b"first"

    def test_put_same_bytes_again_is_refused_too(self, store: Store) -> None:
        """Only a try that was repeated may find its own object; a second put may not."""
        store.put("xcom/a", [b"first"])

        with pytest.raises(PayloadExistsError, match="was not overwritten"):
            store.put("xcom/a", [b"first"])

    def test_put_race_for_one_name_has_one_winner(self, store: Store) -> None:
        """Eight writers: one object, the winner's bytes, seven errors."""
        barrier = Barrier(8)

        def put(number: int) -> Stored | None:
            barrier.wait()
            try:
                return store.put("xcom/a", [bytes([number]) * 100_000])
            except PayloadExistsError:
                return None

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(put, range(8)))

        winners = [number for number, stored in enumerate(outcomes) if stored]
        assert len(winners) == 1
        stored = outcomes[winners[0]]
        assert stored is not None
        assert bytes(store.get(reference_to(stored))) == bytes(winners) * 100_000

    def test_get_object_that_is_gone_says_so(self, store: Store) -> None:
        """A missing payload is an error of its own kind."""
        stored = store.put("xcom/a", [b"abc"])
        store.delete(stored.uri, stored.generation)

        with pytest.raises(PayloadMissingError, match=r"there is no such file|no such object or generation"):
            store.get(reference_to(stored))

    def test_get_other_size_is_corrupt(self, store: Store) -> None:
        """The size is compared before anything is read."""
        stored = store.put("xcom/a", [b"abc"])

        with pytest.raises(PayloadCorruptError, match="is 3 bytes long, and 4 were written"):
            store.get(reference_to(stored)._replace(bytes=4))

    def test_get_other_checksum_is_corrupt(self, store: Store) -> None:
        """Bytes of the right number are not enough."""
        stored = store.put("xcom/a", [b"abc"])

        with pytest.raises(PayloadCorruptError, match="has another CRC32C than what was written"):
            store.get(reference_to(stored)._replace(crc32c="00000000"))

    def test_read_ranges_are_the_bytes_there(self, store: Store) -> None:
        """Beyond the end there is nothing; all pieces together are the object."""
        body = bytes(range(256)) * 40_000
        stored = store.put("xcom/a", [body])

        assert bytes(store.read(stored, 0, 4)) == b"\0\1\2\3"
        assert bytes(store.read(stored, 1_000_000, 1_000_300)) == body[1_000_000:1_000_300]
        assert bytes(store.read(stored, len(body) - 2, len(body) + 99)) == b"\xfe\xff"
        assert bytes(store.read(stored, len(body), len(body) + 99)) == b""
        assert [len(piece) for piece in pieces(store, stored)] == [2**22, 2**22, len(body) - 2**23]
        assert b"".join(pieces(store, stored)) == body
        assert b"".join(pieces(store, store.put("xcom/empty", []))) == b""

    def test_read_object_that_is_gone_says_so(self, store: Store) -> None:
        """Also where it has no byte to ask for."""
        for body in (b"abc", b""):
            stored = store.put("xcom/a", [body])
            store.delete(stored.uri, stored.generation)

            with pytest.raises(PayloadMissingError, match=r"no such (file|object)"):
                list(pieces(store, stored))

    def test_read_object_of_another_size_is_corrupt(self, store: Store) -> None:
        """Longer or shorter than what was written, also where the range itself is there."""
        stored = store.put("xcom/a", [b"abcdef"])

        for size in (5, 9):
            with pytest.raises(PayloadCorruptError, match=f"is 6 bytes long, and {size} were written"):
                store.read(stored._replace(size=size), 0, 3)

    @pytest.mark.parametrize("body", [b"", b"abc", bytes(range(256)) * 12_000], ids=len)
    def test_download_writes_a_new_file(self, store: Store, body: bytes, tmp_path: Path) -> None:
        """The file is the object; progress ends at its size."""
        stored = store.put("xcom/a", [body])
        seen: list[int] = []

        store.download(stored, tmp_path / "file", progress=seen.append)

        assert (tmp_path / "file").read_bytes() == body
        assert seen == sorted(seen)
        assert not body or seen[-1] == len(body)

    def test_download_overwrites_no_file(self, store: Store, tmp_path: Path) -> None:
        """What is there stays."""
        stored = store.put("xcom/a", [b"abc"])
        (tmp_path / "file").write_bytes(b"mine")

        with pytest.raises(FileExistsError):
            store.download(stored, tmp_path / "file")

        assert (tmp_path / "file").read_bytes() == b"mine"

    def test_download_that_fails_leaves_no_file(self, store: Store, tmp_path: Path) -> None:
        """Of another size, another checksum, or gone."""
        stored = store.put("xcom/a", [b"abc"])
        folder = tmp_path / "files"
        folder.mkdir()

        with pytest.raises(PayloadCorruptError, match="is 3 bytes long, and 4 were written"):
            store.download(stored._replace(size=4), folder / "file")
        with pytest.raises(PayloadCorruptError, match="has another CRC32C"):
            store.download(stored._replace(crc32c="00000000"), folder / "file")
        store.delete(stored.uri, stored.generation)
        with pytest.raises(PayloadMissingError, match=r"no such (file|object)"):
            store.download(stored, folder / "file")

        assert list(folder.iterdir()) == []

    def test_delete_removes_one_object_once(self, store: Store) -> None:
        """Its neighbours stay, and a second delete says that there was nothing."""
        stored = store.put("xcom/dag/a", [b"abc"])
        other = store.put("xcom/dag/b", [b"def"])

        assert store.delete(stored.uri, stored.generation) is True
        assert store.delete(stored.uri, stored.generation) is False
        assert bytes(store.get(reference_to(other))) == b"def"

    def test_describe_tells_what_put_told(self, store: Store) -> None:
        """Size, checksum and generation, without the bytes."""
        stored = store.put("xcom/a", [b"abc"])

        assert store.describe(stored.uri) == stored

    def test_describe_object_that_is_gone_says_so(self, store: Store) -> None:
        """As for a read."""
        stored = store.put("xcom/a", [b"abc"])
        store.delete(stored.uri, stored.generation)

        with pytest.raises(PayloadMissingError, match="no such"):
            store.describe(stored.uri)

    @pytest.mark.parametrize("chunks", [[], [b""], [b"abc"], [b"a" * 10, bytearray(b"b"), memoryview(b"c")]])
    def test_put_stream_stores_what_was_yielded(self, store: Store, chunks: list[bytes]) -> None:
        """The object is the chunks joined; its size and checksum are those of the whole."""
        seen: list[int] = []

        stored = store.put_stream("xcom/a", iter(chunks), progress=seen.append)

        body = b"".join(chunks)
        assert (stored.size, stored.crc32c) == (len(body), checksum([body]))
        assert bytes(store.get(reference_to(stored))) == body
        assert seen == sorted(seen)
        assert not seen or seen[-1] == len(body)
        assert names(store) == ["xcom/a"]

    def test_put_stream_reuses_no_chunk(self, store: Store) -> None:
        """A producer may fill the same buffer again and again."""
        buffer = bytearray(3)

        def chunks() -> Iterator[bytearray]:
            for number in range(5):
                buffer[:] = bytes([number]) * 3
                yield buffer

        stored = store.put_stream("xcom/a", chunks())

        assert bytes(store.get(reference_to(stored))) == b"".join(bytes([n]) * 3 for n in range(5))

    def test_put_stream_whose_source_fails_leaves_nothing(self, store: Store) -> None:
        """The source's own error is raised, and no object is left."""

        def chunks() -> Iterator[bytes]:
            yield b"abc"
            raise ZeroDivisionError("in the source")

        with pytest.raises(ZeroDivisionError, match="in the source"):
            store.put_stream("xcom/a", chunks())

        assert names(store) == []

    def test_put_stream_name_that_is_taken_is_refused(self, store: Store) -> None:
        """The first object stays as it was, and no part is left."""
        stored = store.put("xcom/a", [b"first"])

        with pytest.raises(PayloadExistsError, match=r"/xcom/a exists already and was not overwritten"):
            store.put_stream("xcom/a", iter([b"second"]))

        assert bytes(store.get(reference_to(stored))) == b"first"
        assert names(store) == ["xcom/a"]

    def test_copy_is_an_object_of_its_own(self, store: Store) -> None:
        """It has the same bytes and outlives its source."""
        source = store.put("xcom/a", [b"abc"])

        copied = store.copy(source, "xcom/other/b")
        store.delete(source.uri, source.generation)

        assert copied.uri.endswith("/xcom/other/b")
        assert (copied.size, copied.crc32c) == (source.size, source.crc32c)
        assert bytes(store.get(reference_to(copied))) == b"abc"
        assert store.describe(copied.uri) == copied

    def test_copy_of_an_object_that_is_gone_says_so(self, store: Store) -> None:
        """Nothing is created."""
        source = store.put("xcom/a", [b"abc"])
        store.delete(source.uri, source.generation)

        with pytest.raises(PayloadMissingError, match=r"no such (file|object or generation)"):
            store.copy(source, "xcom/b")

        assert names(store) == []

    def test_list_folders_names_the_next_level(self, store: Store) -> None:
        """Each folder once, ordered, with a slash at its end; objects are not listed."""
        for name in ("xcom/b/1", "xcom/a/1/2", "xcom/a/3", "xcom/c", "other/d"):
            store.put(name, [b"abc"])

        assert list(store.list_folders("xcom/")) == ["xcom/a/", "xcom/b/"]
        assert list(store.list_folders("")) == ["other/", "xcom/"]
        assert list(store.list_folders("none/")) == []


class TestDirectoryStore(StoreContract):
    """A directory, as demonstrations use it."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        """An empty directory."""
        (tmp_path / "bucket").mkdir()
        return DirectoryStore((tmp_path / "bucket").as_uri())


class TestGCSStore(StoreContract):
    """A bucket of fake-gcs-server."""

    @pytest.fixture
    def store(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
        """A fresh bucket."""
        from include.xcom.stores.bucket import GCSStore

        try:
            url: str = request.getfixturevalue("gcs_server_url")
        except pytest.FixtureLookupError:
            pytest.skip("the same tests with the Airflow of requirements/dev.txt start fake-gcs-server")
        bucket = f"test-{uuid4().hex[:12]}"
        body = json.dumps({"name": bucket}).encode()
        create = Request(f"{url}/storage/v1/b", body, {"content-type": "application/json"})
        urlopen(create, timeout=5).close()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        return GCSStore(bucket, Settings(bucket=bucket, timeout_seconds=10))

    def test_read_is_of_one_generation(self, store: Store) -> None:
        """An object that was replaced is gone for whoever has the old reference."""
        old = store.put("xcom/a", [b"first"])
        store.delete(old.uri, old.generation)
        store.put("xcom/a", [b"again"])

        with pytest.raises(PayloadMissingError, match="no such object or generation"):
            store.read(old, 0, 2)

    def test_read_compares_the_checksum_that_the_server_states(self, store: Store) -> None:
        """A range tells of bytes that were not read."""
        stored = store.put("xcom/a", [b"abcdef"])

        with pytest.raises(PayloadCorruptError, match="has another CRC32C than what was written"):
            store.read(stored._replace(crc32c="00000000"), 0, 2)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_checksum_is_the_same_of_every_kind_of_bytes(kind: Any) -> None:
    """That of the standard's example, of nothing, and of more than is taken at once."""
    assert checksum([kind(b"1234"), kind(b"56789")]) == "e3069283"
    assert checksum([kind(b"")]) == "00000000"
    assert checksum([kind(bytes(600_000))]) == checksum([bytes(300_000)] * 2)


def test_joined_checksum_is_that_of_the_whole() -> None:
    """Of any number of parts of any size, empty ones included."""
    from include.xcom.stores.checksums import joined_checksum

    chance = random.Random(7)
    for _ in range(300):
        parts = [chance.randbytes(chance.choice([0, 1, 7, 8, 255, 4096])) for _ in range(chance.randrange(6))]
        joined = joined_checksum((checksum([part]), len(part)) for part in parts)
        assert joined == checksum(parts), parts
    # Of sizes that nobody can hold in memory it is consistent in itself.
    huge = ("e3069283", 5 * 2**40)
    assert joined_checksum([huge, huge, huge]) == joined_checksum(
        [huge, (joined_checksum([huge, huge]), 10 * 2**40)]
    )


def test_parts_are_known_by_their_names() -> None:
    """Of an upload that was killed parts may be left; payloads never look like them."""
    from include.xcom.stores.contract import new_token, part_name

    for name in ("xcom/dag/run/task/-1/key/0123.bin", "top.bin"):
        part = part_name(name, new_token(), 12)
        assert is_part(part)
        assert part.rpartition("/")[0] == name.rpartition("/")[0]
        assert not is_part(name)
        assert not is_part(f"{part}.bin")
    assert len(part_name("a/x", new_token(), 99_999)) <= len("a/x") + len(f"{'0' * 32}.bin")
