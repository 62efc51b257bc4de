"""An object store read, listed and written as local files are, as far as one can be; what is said when it fails."""

from __future__ import annotations

import glob
import io
import os
import pickle
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import object_store
import pytest
from hypothesis import given
from hypothesis import strategies as st
from object_store import URL, Proxy

from transforms import files, stores
from transforms.stores import FileInfo, NoSuchObject, StoreError

names = st.sampled_from(["a", "b.x", ".c", "[d]", "a*", "ab"])
trees = st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8, unique=True)
pieces = st.sampled_from(["*", "**", "a", "?", "a*", "*.x", "[!b]*", "[[]d]", ".*", "[ab]?"])
patterns = st.lists(pieces, min_size=1, max_size=4).map("/".join)


@given(trees, patterns)
def test_a_glob_matches_in_a_store_what_it_matches_here(tree: list[str], pattern: str) -> None:
    tree = [path for path in tree if not any(other.startswith(f"{path}/") for other in tree)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for path in tree:
            Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
            Path(folder, path).touch()
        here = {
            os.path.relpath(p, folder) for p in glob.glob(f"{folder}/{pattern}", recursive=True) if os.path.isfile(p)
        }

        def listed(prefix: str) -> Iterator[FileInfo]:
            return (FileInfo(p, 0, "") for p in (f"s3://b/{path}" for path in tree) if p.startswith(prefix))

        patch.setattr(stores, "listed", listed)
        patch.setattr(stores, "info", lambda path: next((i for i in listed(path) if i.path == path), None))
        there = {info.path.removeprefix("s3://b/") for info in files.list_files(f"s3://b/{pattern}")}
    assert there == here


def test_objects_are_read_as_files_are(store: Proxy) -> None:
    data = random.Random(1).randbytes(9 << 20)
    files.write_bytes(f"{URL}/read/large", data)
    rng = random.Random(2)
    assert files.read_bytes(f"{URL}/read/large") == data
    with files.open_input(f"{URL}/read/large") as source:
        for _ in range(12):
            start, length = rng.randrange(len(data)), rng.choice((0, 1, 100, 5 << 20))
            assert source.seek(start) == start
            assert source.read(length) == data[start : start + length]
            assert source.tell() == min(start + length, len(data))
        assert source.seek(-3, os.SEEK_END) == len(data) - 3
        assert source.read() == data[-3:]
    files.write_bytes(f"{URL}/read/empty", b"")
    assert files.read_bytes(f"{URL}/read/empty") == b""


def test_objects_larger_than_a_part_are_written_in_parts(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    from transforms import s3

    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    data = random.Random(1).randbytes(12 << 20)

    stores.write(f"{URL}/parts/whole", io.BytesIO(data), "*")
    assert files.read_bytes(f"{URL}/parts/whole") == data
    with pytest.raises(StoreError) as caught:
        stores.write(f"{URL}/parts/whole", io.BytesIO(data[::-1]), "*")
    assert caught.value.kind == stores.TAKEN
    assert files.read_bytes(f"{URL}/parts/whole") == data

    store.fail("PUT", "partNumber=3", object_store.status(500, "InternalError"))
    with pytest.raises(StoreError):
        stores.write(f"{URL}/parts/torn", io.BytesIO(data))
    assert not files.exists(f"{URL}/parts/torn")
    assert store.count("DELETE", "/parts/torn.*uploadId="), "parts that nobody completes would be kept and billed"


def test_what_stops_a_writer_publishes_nothing(store: Proxy) -> None:
    def stop(error: type[BaseException]) -> None:
        with files.atomic_output(f"{URL}/stopped") as sink:
            sink.write(b"the first half")
            raise error

    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            stop(error)
    assert not files.exists(f"{URL}/stopped")


def test_writes_hold_their_conditions(store: Proxy) -> None:
    path = f"{URL}/conditions/one"
    first = stores.write(path, io.BytesIO(b"1"), "*")
    second = stores.write(path, io.BytesIO(b"2"), first)
    for stale in ("*", first):
        with pytest.raises(StoreError) as caught:
            stores.write(path, io.BytesIO(b"3"), stale)
        assert caught.value.kind == stores.TAKEN
    assert stores.read(path) == (b"2", second)
    with pytest.raises(StoreError):
        stores.write(f"{URL}/conditions/none", io.BytesIO(b"3"), first)


def test_a_server_without_conditions_is_asked_beforehand(store: Proxy) -> None:
    def refuse(handler: object, request: object) -> None:
        if "If-None-Match" in handler.headers or "If-Match" in handler.headers:  # type: ignore[attr-defined]
            object_store.status(501, "NotImplemented")(handler, request)  # type: ignore[arg-type]
        else:
            handler.answer(*handler.ask_store(request.body))  # type: ignore[attr-defined]

    store.fail("PUT", "/older/", refuse)
    first = stores.write(f"{URL}/older/one", io.BytesIO(b"1"), "*")
    assert stores.write(f"{URL}/older/one", io.BytesIO(b"1"), first) == first
    with pytest.raises(StoreError) as caught:
        stores.write(f"{URL}/older/one", io.BytesIO(b"2"), "*")
    assert caught.value.kind == stores.TAKEN


def test_a_version_changes_with_content_and_not_with_time(store: Proxy) -> None:
    path = f"{URL}/version/one"
    found = []
    for content in (b"one", b"two", b"one"):
        files.write_bytes(path, content)
        assert files.list_files(path) == files.list_files(f"{URL}/version/*")
        found.append(files.file_info(path))
    assert found[0] == found[2] != found[1]
    assert 0 <= (stores.age(path) or 0) < 60


def test_a_server_that_knows_no_etags_is_read_all_the_same(store: Proxy) -> None:
    def without_etag(handler: object, request: object) -> None:
        status, headers, body = handler.ask_store(request.body)  # type: ignore[attr-defined]
        headers = [(name, value) for name, value in headers if name.lower() != "etag"]
        handler.answer(status, headers, body)  # type: ignore[attr-defined]

    files.write_bytes(f"{URL}/plain/one", b"content")
    for method in ("GET", "HEAD"):
        store.fail(method, "/plain/one", without_etag)
    assert files.read_bytes(f"{URL}/plain/one") == b"content"
    found = files.file_info(f"{URL}/plain/one")
    assert found is not None
    assert found.version


def test_what_is_not_there_is_told_as_a_missing_file(store: Proxy) -> None:
    for read in (files.read_bytes, files.open_input):
        with pytest.raises(FileNotFoundError):
            read(f"{URL}/gone")
    assert stores.read(f"{URL}/gone") is stores.age(f"{URL}/gone") is files.file_info(f"{URL}/gone") is None
    assert not files.exists(f"{URL}/gone")
    files.remove(f"{URL}/gone")
    files.remove_tree(f"{URL}/gone")
    assert not files.any_below(f"{URL}/gone")


FAULTS = {
    "broken off": (object_store.cut_answer, stores.SILENT, "broke off its answer"),
    "hung up": (object_store.hang_up, stores.SILENT, "does not answer"),
    "failing": (object_store.status(503, "SlowDown"), stores.SILENT, "503, SlowDown"),
    "denied": (object_store.status(403, "AccessDenied"), stores.DENIED, "denies access"),
    "expired": (object_store.status(400, "ExpiredToken"), stores.DENIED, "denies access"),
    "replaced": (object_store.status(412, "PreconditionFailed"), stores.FAILED, "replaced while it was read"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_fails_while_reading_is_told_soon_and_in_words(store: Proxy, name: str) -> None:
    fault, kind, words = FAULTS[name]
    files.write_bytes(f"{URL}/faulty", bytes(10_000))
    source = files.open_input(f"{URL}/faulty")
    store.fail("GET", "/faulty", fault)
    started = time.monotonic()
    with pytest.raises(StoreError, match=words) as caught:
        source.read()
    assert caught.value.kind == kind
    assert not isinstance(caught.value, OSError), "it would be taken for a fact about the input"
    assert time.monotonic() - started < 30
    assert str(caught.value).startswith(f"{URL}/faulty: ")


def test_an_answer_that_breaks_off_once_is_asked_for_again(store: Proxy) -> None:
    data = random.Random(3).randbytes(100_000)
    files.write_bytes(f"{URL}/stutter", data)
    store.fail("GET", "/stutter", object_store.cut_answer, times=2)
    assert files.read_bytes(f"{URL}/stutter") == data


def test_nobody_waits_for_ever(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    from transforms import s3

    monkeypatch.setenv("ANCHORMIX_STORE_SECONDS", "1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3._connected.cache_clear()
    store.fail("HEAD", "/slow", object_store.silence(3))
    with pytest.raises(StoreError, match="did not answer within 1 second"):
        files.exists(f"{URL}/slow")


def test_a_bucket_or_a_scheme_that_is_unknown_is_named(store: Proxy) -> None:
    for path, kind in (("s3://no-such-bucket/x/*", stores.NO_BUCKET), ("ftp://host/*", stores.UNAVAILABLE)):
        with pytest.raises(StoreError) as caught:
            files.list_files(path)
        assert caught.value.kind == kind


def test_errors_survive_the_way_between_processes() -> None:
    for error in (StoreError("s3://b/k", "it failed", stores.SILENT), NoSuchObject("s3://b/k")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.kind) == (type(error), str(error), error.kind)
