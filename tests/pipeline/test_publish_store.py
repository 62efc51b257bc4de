"""Publishing to a store that fails, lies, loses answers or dies: a whole mix, or none that a reader takes for one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import object_store
import pytest
from object_store import URL, Proxy, everything_below

from pipeline import lease, publish, publish_store
from pipeline.errors import AnchormixError, UsageError
from transforms import files, stores

pytestmark = pytest.mark.engine

FILES = {
    "data/train-00000-of-00002.parquet": b"0" * 1000,
    "data/train-00001-of-00002.parquet": b"1" * 2000,
    "fates/part-00000.parquet": b"f",
    "custody/empty.leaves": b"",
    "run.json": b"{}",
    "manifest.json": b'{"plan": "p"}',
    "manifest.dsse.json": b"{}",
}
WHOLE = {**FILES, "_SUCCESS": b""}


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def output(request: pytest.FixtureRequest) -> str:
    return f"{URL}/{request.node.name.translate(str.maketrans('[] /', '----'))}"


def publish_to(output: str, staged: Path) -> None:
    with publish.destination(output, True) as publish_here:
        publish_here(staged)


def test_everything_arrives_and_success_is_last(store: Proxy, staged: Path, output: str) -> None:
    assert publish.published(output) is None
    publish_to(output, staged)
    assert everything_below(output) == WHOLE
    assert publish.published(output) == {"plan": "p"}
    written = [path.rsplit(f"{output.rsplit('/')[-1]}/")[-1] for method, path in store.log if method == "PUT"]
    assert written[0] == "_PUBLISHING"
    assert written[-3:] == ["manifest.json", "manifest.dsse.json", "_SUCCESS"]


FAULTS = {
    "an error each time": object_store.status(500, "InternalError"),
    "full": object_store.status(507, "InsufficientStorage"),
    "denied": object_store.status(403, "AccessDenied"),
    "hung up": object_store.hang_up,
}


@pytest.mark.parametrize("place", ["/data/train-00001", "/manifest.json", "/_SUCCESS"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_fails_leaves_nothing_and_the_next_run_publishes(
    store: Proxy, staged: Path, output: str, fault: str, place: str
) -> None:
    store.fail("PUT", place, FAULTS[fault])
    with pytest.raises(AnchormixError, match=place) as caught:
        publish_to(output, staged)
    assert (caught.value.code, caught.value.exit_code) == ("store_failed", 1)
    assert everything_below(output) == {}
    store.heal()
    publish_to(output, staged)
    assert everything_below(output) == WHOLE


def test_a_store_that_loses_what_it_took_is_found_out(store: Proxy, staged: Path, output: str) -> None:
    store.fail("PUT", "/data/train-00001", object_store.lie)
    with pytest.raises(AnchormixError, match="2,000 bytes were uploaded, and the store does not list it"):
        publish_to(output, staged)
    assert everything_below(output) == {}


def test_a_store_that_keeps_half_of_what_it_took_is_found_out(store: Proxy, staged: Path, output: str) -> None:
    def halve(handler: object, request: object) -> None:
        files.write_bytes(f"{output}/data/train-00000-of-00002.parquet", b"0" * 500)
        object_store.lie(handler, request)  # type: ignore[arg-type]

    store.fail("PUT", "/data/train-00000", halve, times=1)
    with pytest.raises(AnchormixError, match="1,000 bytes were uploaded, and the store has 500 bytes of it"):
        publish_to(output, staged)
    assert publish.published(output) is None


def test_lost_answers_are_no_other_writer(store: Proxy, staged: Path, output: str) -> None:
    for place in ("/_PUBLISHING", "/data/train-00000", "/manifest.json", "/_SUCCESS"):
        store.fail("PUT", place, object_store.forget_answer, times=1)
    publish_to(output, staged)
    assert everything_below(output) == WHOLE


@pytest.mark.parametrize("requests", [1, 3, 6, 8])
def test_a_run_that_dies_at_any_request_is_cleared_by_the_next(
    store: Proxy, staged: Path, output: str, requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be taken back, not even the claim: it is found by the next run, once it is old."""
    for method in ("PUT", "POST", "DELETE"):
        store.fail(method, "", object_store.hang_up, first=requests if method == "PUT" else 0)
    with pytest.raises(AnchormixError):
        publish_to(output, staged)
    store.heal()
    left = everything_below(output)
    assert "_SUCCESS" not in left
    assert "_PUBLISHING" in left
    assert publish.published(output) is None, "what a dead run left is no obstacle"
    # Of this machine, and alive: the test itself.
    with pytest.raises(UsageError, match="is being written by"):
        publish_to(output, staged)

    monkeypatch.setattr(stores, "age", lambda path: 601.0)
    publish_to(output, staged)
    assert everything_below(output) == WHOLE


def test_what_stands_there_is_never_overwritten(store: Proxy, staged: Path, output: str) -> None:
    files.write_bytes(f"{output}/notes.txt", b"mine")
    for call in (lambda: publish.published(output), lambda: publish_to(output, staged)):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.code == "output_exists"
    assert everything_below(output) == {"notes.txt": b"mine"}

    published = f"{output}-again"
    publish_to(published, staged)
    (staged / "data" / "train-00000-of-00002.parquet").write_bytes(b"other")
    with pytest.raises(UsageError, match="came into being"):
        publish_to(published, staged)
    assert everything_below(published) == WHOLE


def test_the_second_of_two_is_refused_at_the_beginning(store: Proxy, output: str) -> None:
    with publish_store.claimed(output):
        with pytest.raises(UsageError, match="is being written by process") as caught, publish_store.claimed(output):
            pass
        assert caught.value.code == "output_locked"


def test_a_mix_that_appears_meanwhile_is_left_alone(
    store: Proxy, staged: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a writer that knows nothing of claims: every object is written only where none stands."""
    write = stores.write

    def race(path: str, body: object, condition: str | None = None) -> str:
        if path.endswith("train-00001-of-00002.parquet"):
            files.write_bytes(f"{output}/manifest.json", b"theirs")
        return write(path, body, condition)  # type: ignore[arg-type]

    monkeypatch.setattr(publish_store.stores, "write", race)
    with pytest.raises(UsageError, match="came into being"):
        publish_to(output, staged)
    assert everything_below(output)["manifest.json"] == b"theirs"


def test_a_run_that_slept_writes_nothing_more(
    store: Proxy, staged: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, now = stores.write, time.monotonic

    def sleep(path: str, body: object, condition: str | None = None) -> str:
        if path.endswith("/fates/part-00000.parquet"):
            files.write_bytes(f"{output}/_PUBLISHING", b'{"run": "another"}')
            monkeypatch.setattr(lease.time, "monotonic", lambda: now() + 500)
        return write(path, body, condition)  # type: ignore[arg-type]

    monkeypatch.setattr(publish_store.stores, "write", sleep)
    with pytest.raises(AnchormixError) as caught:
        publish_to(output, staged)
    assert caught.value.code == "lease_lost"
    left = everything_below(output)
    assert not {"manifest.json", "_SUCCESS"} & left.keys()
    assert json.loads(left["_PUBLISHING"]) == {"run": "another"}  # which it is not for this run to remove


@pytest.mark.parametrize(
    ("method", "pattern", "fault", "exit_code", "code"),
    [
        ("GET", "list-type", object_store.status(403, "AccessDenied"), 2, "output_not_writable"),
        ("PUT", "_PUBLISHING", object_store.status(403, "AccessDenied"), 2, "output_not_writable"),
        ("GET", "list-type", object_store.status(404, "NoSuchBucket"), 2, "output_not_writable"),
        ("GET", "list-type", object_store.status(503, "SlowDown"), 1, "store_failed"),
        ("PUT", "_PUBLISHING", object_store.hang_up, 1, "store_failed"),
    ],
)
def test_a_place_that_cannot_be_used_is_told_before_any_work(
    store: Proxy, output: str, method: str, pattern: str, fault: object_store.Fault, exit_code: int, code: str
) -> None:
    store.fail(method, pattern, fault)

    def begin() -> None:
        publish.published(output)
        with publish_store.claimed(output):
            pass

    with pytest.raises(AnchormixError) as caught:
        begin()
    assert (caught.value.exit_code, caught.value.code) == (exit_code, code)
