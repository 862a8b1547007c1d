"""Describe bytes: as an image, as text, or their beginning in hexadecimal."""

from __future__ import annotations

from typing import Any

from . import limits
from .pipe import PipedFile, Question

__all__ = ["describe", "image_type"]

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def image_type(head: bytes) -> str | None:
    """Return the media type of an image that a browser may show; never SVG, which is a document."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return "image/webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def describe(file: PipedFile, question: Question) -> dict[str, Any]:
    """Describe bytes by their beginning."""
    head = file.range(0, limits.TEXT_CHARACTERS)
    described: dict[str, Any] = {"kind": "blob", "bytes": file.size, "image": image_type(head)}
    if described["image"]:
        return {**described, "is_too_large": file.size > limits.IMAGE_BYTES}
    text = _text(head, is_cut=file.size > len(head))
    if text:
        return {**described, "text": text, "is_cut": file.size > len(head)}
    shown = head[: limits.HEX_BYTES]
    lines = [(at, shown[at : at + 16]) for at in range(0, len(shown), 16)]
    return {**described, "hex": [[f"{at:08x}", line.hex(" "), _printable(line)] for at, line in lines]}


def _text(head: bytes, *, is_cut: bool) -> str:
    """Decode UTF-8; return ``""`` for bytes that are not printable text."""
    for missing in range(4 if is_cut else 1):  # A character of four bytes may be cut at the end.
        try:
            text = head[: len(head) - missing].decode()
        except UnicodeDecodeError:
            continue
        return text if all(one.isprintable() or one in "\r\n\t" for one in text) else ""
    return ""


def _printable(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in data)
