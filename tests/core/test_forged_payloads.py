"""Payloads and rows that no writer writes, under a checksum that fits: each is refused, and nothing runs."""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from include.xcom import codecs, payloads
from include.xcom.codecs.classes import allow_lists
from include.xcom.codecs.compression import compress
from include.xcom.errors import PayloadCorruptError, PayloadTooLargeError, UnsupportedTypeError
from include.xcom.reference import Coordinates

HERE = Coordinates("sales", "manual__1", "load", -1, "return_value")


def npy(description: str, shape: tuple[int, ...], data: bytes) -> bytes:
    """Return a file of NumPy's format 2.0 with any header."""
    file = io.BytesIO()
    header = {"descr": description, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, header)
    return file.getvalue() + data


def old_npy() -> bytes:
    """Return a file as ``numpy.save`` writes it, in another version of the format."""
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


def bundle(names: list[str], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name in names:
            archive.writestr(name, b'"' + b"x" * 98 + b'"')
    return file.getvalue()


def frame(text: bytes) -> bytes:
    """Return a zstd frame."""
    return b"".join(compress([text]))


FORGED = {
    "npy-of-objects": ("npy", npy("|O", (1,), bytes(8)), "arrays of objects are refused"),
    "npy-of-another-version": ("npy", old_npy(), "unknown version of the .npy format"),
    "npy-that-lacks-data": ("npy", npy("<i8", (10,), bytes(8)), r"8 bytes do not fill shape \(10,\)"),
    "npy-with-more-behind-it": ("npy", npy("<i8", (1,), bytes(16)), "16 bytes do not fill"),
    "zstd-of-unknown-length": (
        "json",
        zstandard.ZstdCompressor(write_content_size=False).compress(b"[1]"),
        "does not say how long its content is",
    ),
    "zstd-that-goes-on": (
        "json",
        frame(b"[" + b"1," * 1_000_000 + b"1]") + frame(b"[1]"),
        "zstd frame holds 2000006 bytes and says 2000003|payload is not JSON",
    ),
    "no-json": ("json", frame(b"nothing"), "the payload is not JSON"),
    "bundle-of-compressed-members": (
        "tagged-json",
        bundle(["value.json"], zipfile.ZIP_DEFLATED),
        "'value.json' is cut or compressed",
    ),
    "bundle-of-twins": (
        "tagged-json",
        bundle(["value.json", "value.jsom"]).replace(b"value.jsom", b"value.json"),
        "the bundle has two members 'value.json'",
    ),
}


@pytest.mark.parametrize(("codec", "payload", "said"), FORGED.values(), ids=FORGED)
def test_forged_payload_is_refused(codec: str, payload: bytes, said: str) -> None:
    """Before memory is taken for what it claims."""
    with pytest.raises(PayloadCorruptError, match=said):
        codecs.decode(memoryview(bytearray(payload)), codec, 1, "list", 10**8)


def test_text_of_a_bundle_has_the_limit_of_other_payloads() -> None:
    """Its parts have their own."""
    with pytest.raises(PayloadTooLargeError, match="expands to 100 bytes; the limit is 99"):
        codecs.decode(memoryview(bytearray(bundle(["value.json"]))), "tagged-json", 1, "str", 99)


def row_of(node: Any) -> dict[str, Any]:
    """Return a row that claims to be a value of ours."""
    return {"__classname__": "gcs_xcom.Value", "__version__": 1, "__data__": node}


def test_row_that_no_database_holds_is_refused() -> None:
    """A test of a Dag may pass anything."""
    with pytest.raises(PayloadCorruptError, match="the row is no JSON that a database holds"):
        payloads.load(row_of({"$tuple": [object()]}))


@pytest.fixture
def _permitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES", "airflow.* broken_when_imported.*")
    allow_lists.cache_clear()
    yield
    allow_lists.cache_clear()


@pytest.mark.usefixtures("_permitted")
def test_class_whose_module_fails_is_named_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader learns which deployment lacks what."""
    (tmp_path / "broken_when_imported.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(
        UnsupportedTypeError, match=r"broken_when_imported.Row cannot be imported here: .*no licence"
    ):
        payloads.load(row_of({"$object": ["broken_when_imported.Row", {"price": 1}]}))

    assert "broken_when_imported" not in sys.modules


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (re.compile(b"[0-9]+"), "a pattern of bytes has no JSON form; return its source"),
        (np.zeros(2, np.dtype("i4", metadata={"unit": "m"})), "does not describe dtype .* in full"),
    ],
    ids=["pattern-of-bytes", "dtype-with-metadata"],
)
def test_value_that_has_no_form_is_answered_with_what_to_return(value: Any, said: str) -> None:
    """Airflow's default refuses these as well."""
    with pytest.raises(UnsupportedTypeError, match=said):
        payloads.store([value], HERE)
