"""A lease in an object store: one holder, heartbeats, and what becomes of a holder that died or slept."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import object_store
import pytest
from object_store import URL, Proxy

from pipeline import lease as leases
from pipeline.errors import AnchormixError
from pipeline.lease import Lease, Refused
from transforms import files, stores


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of objects are whole seconds, so a lease of two is as short as one can be."""
    monkeypatch.setenv("ANCHORMIX_LEASE_SECONDS", "2")


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
    done, holding = threading.Event(), []

    def take(_: int) -> bool:
        try:
            with Lease(path).held():
                holding.append(path)
                return done.wait(10)
        except Refused:
            return False
        finally:
            if len(holding) == 1:
                done.set()

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(take, range(6))) == 1


def test_a_heart_that_beats_keeps_it_and_one_that_stopped_does_not(store: Proxy, short: None) -> None:
    path = f"{URL}/lease/beats"
    with Lease(path).held() as lease:
        time.sleep(3.2)
        with pytest.raises(Refused), Lease(path).held():
            pass
        lease.check()
    files.write_bytes(path, b'{"holder": "process 7 on a machine that is gone", "run": "x"}')
    with pytest.raises(Refused, match="process 7 on a machine that is gone"), Lease(path).held():
        pass
    time.sleep(3.2)
    with Lease(path).held() as lease:
        assert lease.taken_over


def test_of_two_that_find_a_dead_one_one_gets_it(store: Proxy, short: None) -> None:
    path = f"{URL}/lease/heirs"
    files.write_bytes(path, b"not even JSON")
    time.sleep(3.2)
    first, second = Lease(path), Lease(path)
    standing = stores.read(path)
    assert standing is not None
    assert first._write(standing[1])
    assert not second._write(standing[1])


def test_who_slept_too_long_is_told_and_takes_nothing_away(store: Proxy, short: None) -> None:
    path = f"{URL}/lease/slept"
    with Lease(path).held() as lease:
        store.fail("PUT", "/lease/slept", object_store.hang_up)
        time.sleep(2)
        with pytest.raises(AnchormixError, match="could not renew its lease in time") as caught:
            lease.check()
        assert caught.value.code == "lease_lost"
        store.heal()
        files.write_bytes(path, b'{"run": "another"}')
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


def test_an_answer_that_was_lost_is_no_other_run(store: Proxy, short: None) -> None:
    path = f"{URL}/lease/lost"
    store.fail("PUT", "/lease/lost", object_store.forget_answer, times=1)
    with Lease(path).held() as lease:
        store.fail("PUT", "/lease/lost", object_store.forget_answer, times=1)
        time.sleep(1)
        lease.check()
        assert lease._beats > 2


def test_a_lease_that_is_abandoned_stands(store: Proxy) -> None:
    path = f"{URL}/lease/left"
    with Lease(path).held() as lease:
        lease.abandon()
    assert files.exists(path)
    stores.write(path, io.BytesIO(b"{}"))
