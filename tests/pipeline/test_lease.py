"""A lease in an object store: one holder, heartbeats, and what becomes of a holder that died or slept."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import object_store
import pytest
from object_store import URL, Proxy

from pipeline import lease as leases
from pipeline.errors import AnchormixError
from pipeline.lease import Lease, Refused
from transforms import files, stores


@pytest.fixture
def old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lease looks as if nothing had been heard of its holder for more than ten minutes."""
    monkeypatch.setattr(stores, "age", lambda path: 601.0)


def until(true: Callable[[], bool]) -> None:
    """Wait for what a heart does: machines that stall may take their time."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_second_is_refused_and_told_who_holds_it(store: Proxy) -> None:
    path = f"{URL}/lease/second"
    with Lease(path).held() as lease:
        lease.check()
        with pytest.raises(Refused, match=f"process {os.getpid()} on .*600 seconds"), Lease(path).held():
            pass
    with Lease(path).held() as lease:
        assert not lease.taken_over
    assert not files.exists(path)


def test_of_many_at_once_one_gets_it(store: Proxy) -> None:
    path = f"{URL}/lease/many"
    refused: list[int] = []

    def take(number: int) -> bool:
        try:
            with Lease(path).held():
                until(lambda: len(refused) == 5)
                return True
        except Refused:
            refused.append(number)
            return False

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(take, range(6))) == 1


def test_a_heart_beats_and_every_beat_is_a_new_version(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANCHORMIX_LEASE_SECONDS", "5")
    path = f"{URL}/lease/beats"
    with Lease(path).held() as lease:
        first = stores.read(path)
        until(lambda: lease._beats > 2)
        second = stores.read(path)
        assert first is not None
        assert second is not None
        assert first[1] != second[1]
        assert (stores.age(path) or 0) < 60
    assert not files.exists(path)


def test_a_lease_is_taken_over_after_ten_minutes_and_not_before(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{URL}/lease/silent"
    files.write_bytes(path, b'{"holder": "process 7 on a machine that is gone", "run": "x"}')
    for age in (0.0, 599.0):
        monkeypatch.setattr(stores, "age", lambda path, age=age: age)
        with pytest.raises(Refused, match="process 7 on a machine that is gone"), Lease(path).held():
            pass
    monkeypatch.setattr(stores, "age", lambda path: 601.0)
    with Lease(path).held() as lease:
        assert lease.taken_over


def test_of_two_that_find_a_dead_one_one_gets_it(store: Proxy, old: None) -> None:
    path = f"{URL}/lease/heirs"
    files.write_bytes(path, b"not even JSON")
    first, second = Lease(path), Lease(path)
    standing = stores.read(path)
    assert standing is not None
    assert first._write(standing[1])
    assert not second._write(standing[1])


def test_who_was_out_of_touch_for_too_long_is_told(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic
    with Lease(f"{URL}/lease/slept").held() as lease:
        lease.check()
        monkeypatch.setattr(leases.time, "monotonic", lambda: now() + 500)
        with pytest.raises(AnchormixError, match="could not renew its lease in time") as caught:
            lease.check()
        assert caught.value.code == "lease_lost"


def test_who_finds_another_at_its_place_is_told_and_takes_nothing_away(
    store: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANCHORMIX_LEASE_SECONDS", "5")
    path = f"{URL}/lease/replaced"
    with Lease(path).held() as lease:
        files.write_bytes(path, b'{"run": "another"}')
        until(lambda: lease._lost)
        with pytest.raises(AnchormixError, match="another one may work there now"):
            lease.check()
    assert json.loads(files.read_bytes(path)) == {"run": "another"}


def test_a_process_of_this_machine_that_ended_is_not_waited_for(store: Proxy) -> None:
    path = f"{URL}/lease/here"
    program = "import json, pipeline.lease as l; print(json.dumps(l._process()))"
    ended = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    files.write_bytes(path, json.dumps({"run": "x", "process": ended, "holder": "it"}).encode())
    with Lease(path).held() as lease:
        assert lease.taken_over
    for other in (
        leases._process(),
        ["another boot", *ended[1:]],
        [ended[0], "another namespace", *ended[2:]],
        None,
        5,
    ):
        files.write_bytes(path, json.dumps({"run": "x", "process": other, "holder": "it"}).encode())
        with pytest.raises(Refused), Lease(path).held():
            pass


def test_an_answer_that_was_lost_is_no_other_run(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANCHORMIX_LEASE_SECONDS", "5")
    path = f"{URL}/lease/lost"
    store.fail("PUT", "/lease/lost", object_store.forget_answer, times=1)
    with Lease(path).held() as lease:
        store.fail("PUT", "/lease/lost", object_store.forget_answer, times=1)
        until(lambda: lease._beats > 2)
        assert not lease._lost


def test_a_lease_that_is_abandoned_stands(store: Proxy) -> None:
    path = f"{URL}/lease/left"
    with Lease(path).held() as lease:
        lease.abandon()
    assert files.exists(path)
    stores.write(path, io.BytesIO(b"{}"))
