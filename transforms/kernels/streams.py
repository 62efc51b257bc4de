"""Bytes in: opening, decompressing and cutting a file, every failure of which is an UnreadableFile."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import zstandard

__all__ = ["Opener", "UnreadableFile", "decompressed", "line_blocks", "opened", "reading"]

Opener = Callable[[], Any]
"""Opens the raw bytes of the file: a binary file object of Python or Arrow, seekable for Parquet."""

READ_BYTES = 1 << 20
INFLATED_BYTES = 4 << 20  # what one step may unpack
# zstandard cannot bound what one call unpacks, and four bytes may stand for 128 KiB of zeros.
ZSTD_FEED_BYTES = 16 << 10
# `zstd --long=31`, as large public dumps are packed; memory is touched only as far as the window fills.
ZSTD_MAX_WINDOW = 1 << 31

UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class UnreadableFile(Exception):
    """The file cannot be read to its end: what went wrong, and where."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@contextmanager
def reading(path: str, problem: str) -> Iterator[None]:
    """Turns whatever goes wrong inside into UnreadableFile.

    File objects of any filesystem and decoders of damaged bytes raise what they please, so the net is as wide as can
    be; wrap nothing in it but calls into them.
    """
    try:
        yield
    except UnreadableFile:
        raise
    except Exception as error:
        # What libraries add to a system's error repeats the path.
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        reason = getattr(error, "problem", reason)  # without the path, where the error knows it apart
        raise UnreadableFile(path, f"{problem}: {reason or type(error).__name__}") from error


@contextmanager
def opened(opener: Opener, path: str) -> Iterator[Any]:
    with reading(path, "cannot be opened"):
        source = opener()
    with closing(source):
        yield source


def decompressed(source: Any, path: str, compression: str) -> Iterator[bytes]:
    """The content in pieces, without a leading UTF-8 byte order mark."""
    unpack = {"none": lambda pieces, _: pieces, "gz": _gunzip, "zst": _unzstd}[compression]
    return _without_mark(unpack(_raw(source, path), path), path)


def line_blocks(pieces: Iterator[bytes], block_bytes: int, max_line: int) -> Iterator[bytes | None]:
    """Blocks of whole lines, at most `block_bytes` where lines allow; None stands for a line beyond `max_line`.

    The cuts depend on the content alone, not on how it arrived in pieces.
    """
    held = bytearray()
    size = block_bytes
    while True:
        if not _fill(held, pieces, size):
            if held:
                yield bytes(held)
            return
        cut = held.rfind(b"\n", 0, size) + 1
        if cut:
            yield bytes(memoryview(held)[:cut])
            del held[:cut]
            size = block_bytes
        elif size < max_line:
            size = min(2 * size, max_line)
        else:
            _skip_line(held, pieces)
            yield None
            size = block_bytes


def _fill(held: bytearray, pieces: Iterator[bytes], size: int) -> bool:
    """Reads until more than `size` bytes are held; False at the end."""
    while len(held) <= size:
        piece = next(pieces, None)
        if piece is None:
            return False
        held += piece
    return True


def _skip_line(held: bytearray, pieces: Iterator[bytes]) -> None:
    while (end := held.find(b"\n")) < 0:
        held.clear()
        piece = next(pieces, None)
        if piece is None:
            return
        held += piece
    del held[: end + 1]


def _raw(source: Any, path: str) -> Iterator[bytes]:
    position = 0
    while True:
        with reading(path, f"reading failed at byte {position}"):
            piece = source.read(READ_BYTES)
        if not piece:
            return
        position += len(piece)
        yield piece


def _gunzip(pieces: Iterator[bytes], path: str) -> Iterator[bytes]:
    """Any number of members; zero bytes behind the last one are padding."""
    member = zlib.decompressobj(31)
    unpacked = 0
    for piece in pieces:
        rest, pending = piece, False
        while rest or pending:
            if member.eof:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                member = zlib.decompressobj(31)
            with reading(path, f"the gzip stream is corrupt after {unpacked} unpacked bytes"):
                content = member.decompress(rest, INFLATED_BYTES)
            unpacked += len(content)
            yield content
            rest = member.unused_data if member.eof else member.unconsumed_tail
            pending = len(content) == INFLATED_BYTES and not member.eof
    if not member.eof:
        raise UnreadableFile(path, f"the gzip stream ends early, after {unpacked} unpacked bytes")


def _unzstd(pieces: Iterator[bytes], path: str) -> Iterator[bytes]:
    """Any number of frames."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW)
    frame = decompressor.decompressobj()
    unpacked = 0
    for piece in pieces:
        for start in range(0, len(piece), ZSTD_FEED_BYTES):
            rest = piece[start : start + ZSTD_FEED_BYTES]
            while rest:
                if frame.eof:
                    frame = decompressor.decompressobj()
                with reading(path, f"the zstd stream is corrupt after {unpacked} unpacked bytes"):
                    content = frame.decompress(rest)
                unpacked += len(content)
                yield content
                rest = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise UnreadableFile(path, f"the zstd stream ends early, after {unpacked} unpacked bytes")


def _without_mark(pieces: Iterator[bytes], path: str) -> Iterator[bytes]:
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= len(UTF8_MARK):
            break
    if start.startswith(UTF16_MARKS):
        raise UnreadableFile(path, "starts with a UTF-16 byte order mark; convert it to UTF-8")
    yield start.removeprefix(UTF8_MARK)
    yield from pieces
