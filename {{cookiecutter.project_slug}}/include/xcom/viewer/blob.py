"""Bytes: the picture that they are, the text that they are, or their beginning in hexadecimal."""

from __future__ import annotations

from typing import Any

from . import limits
from .pipe import PipedFile

__all__ = ["describe", "image_type"]

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


def image_type(head: bytes) -> str | None:
    """Return the media type of a picture that a browser may show; never SVG, which is a document."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return "image/webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def describe(file: PipedFile, asked: dict[str, Any]) -> dict[str, Any]:
    """Describe bytes by their beginning."""
    head = file.range(0, limits.TEXT_CHARACTERS)
    made: dict[str, Any] = {"kind": "blob", "bytes": file.size, "image": image_type(head)}
    if made["image"]:
        made["is_too_large"] = file.size > limits.IMAGE_BYTES
        return made
    try:
        # A character of four bytes may be cut at the end.
        text = head.decode("utf-8", "strict") if file.size == len(head) else _without_cut_end(head)
        if head and all(character.isprintable() or character in "\r\n\t" for character in text):
            return {**made, "text": text, "is_cut": file.size > len(head)}
    except UnicodeDecodeError:
        pass
    shown = head[: limits.HEX_BYTES]
    made["hex"] = [
        [f"{at:08x}", shown[at : at + 16].hex(" "), _printable(shown[at : at + 16])]
        for at in range(0, len(shown), 16)
    ]
    return made


def _without_cut_end(head: bytes) -> str:
    for missing in range(4):
        try:
            return head[: len(head) - missing].decode()
        except UnicodeDecodeError as error:
            last = error
    raise last


def _printable(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in data)
