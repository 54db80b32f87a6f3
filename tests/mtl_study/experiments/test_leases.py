"""A run is claimed before it is trained; what nobody holds any more can be taken over."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from mtl_study.experiments import leases
from mtl_study.experiments.leases import Leases


@pytest.fixture
def path(tmp_path):
    return tmp_path / "multimnist" / "key.lease"


@pytest.fixture
def two():
    both = Leases(), Leases()
    yield both
    for one in both:
        one.close()


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write(path, age=0.0, **said):
    """A lease of somebody else, renewed `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"token": "another", "place": "elsewhere 1", "pid": 1, "since": 0, **said}))
    os.utime(path, (time.time() - age,) * 2)


def test_the_first_one_has_it_until_it_is_released(path, two):
    assert two[0].claim(path) and not two[1].claim(path)
    assert leases.holder(path).endswith(f"process {os.getpid()}")
    two[1].release(path)  # which does not have it
    assert path.exists()
    two[0].release(path)
    assert two[1].claim(path)


def test_all_are_given_back_at_the_end(path, two):
    assert two[0].claim(path)
    two[0].close()
    assert not path.exists()


def test_one_that_was_not_renewed_is_taken_over(path, two):
    write(path, age=leases.EXPIRES - 30)
    assert not two[0].claim(path)
    write(path, age=leases.EXPIRES + 1)
    assert two[0].claim(path) and not two[1].claim(path)
    assert sorted(os.listdir(path.parent)) == ["key.1.lease", "key.lease"]
    os.utime(path.with_name("key.1.lease"), (0, 0))  # its holder is gone, too
    assert two[1].claim(path) and not two[0].claim(path)
    two[1].release(path)
    assert os.listdir(path.parent) == []


def test_a_holder_renews(path, monkeypatch):
    monkeypatch.setattr(leases, "RENEW", 0.05)
    one = Leases()
    assert one.claim(path)
    os.utime(path, (0, 0))
    deadline = time.monotonic() + 20
    while path.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    one.close()
    assert not path.exists()


def test_who_lost_one_leaves_it_to_the_other(path, monkeypatch):
    """A machine that slept too long finds its lease taken over."""
    monkeypatch.setattr(leases, "RENEW", 0.05)
    one = Leases()
    assert one.claim(path)
    write(path, age=50)
    time.sleep(0.3)
    one.close()
    assert time.time() - path.stat().st_mtime > 40


def test_who_lost_one_does_not_give_it_back(path):
    """A expires, B takes over, A ends: B has it still, and C gets it when B is done."""
    a, b, c = Leases(), Leases(), Leases()
    assert a.claim(path)
    os.utime(path, (0, 0))
    assert b.claim(path) and not c.claim(path)
    a.close()
    assert path.exists() and not c.claim(path)
    b.release(path)
    assert os.listdir(path.parent) == [] and c.claim(path)
    b.close()
    c.close()
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("first", ["renewed", "given back"])
def test_who_takes_over_at_the_moment_at_which_its_holder_comes_back_has_nothing(path, two, monkeypatch, first):
    """Between a look at the old lease and the new one, its holder renews it, or gives it back and another claims it."""
    assert two[0].claim(path)
    os.utime(path, (0, 0))
    make = os.open

    def late(lease, *arguments):
        if os.fspath(lease).endswith(".1.lease"):
            monkeypatch.undo()
            if first == "renewed":
                os.utime(path)
            else:
                two[0].release(path)
                assert two[0].claim(path)
        return make(lease, *arguments)

    monkeypatch.setattr(os, "open", late)
    assert not two[1].claim(path)
    assert os.listdir(path.parent) == [path.name] and leases._read(path)["token"] == two[0].token


def test_a_gap_in_a_chain_is_no_free_lease(path, two):
    """Who lost it gave back the first file at the moment at which it was taken over."""
    write(path.with_name("key.1.lease"))
    assert not two[0].claim(path) and os.listdir(path.parent) == ["key.1.lease"]


def test_one_that_is_released_during_a_claim_is_claimed(path, two, monkeypatch):
    """There is a lease then, which keeps others away."""
    assert two[0].claim(path)
    make = os.open

    def late(*arguments):
        try:
            return make(*arguments)
        except FileExistsError:
            two[0].release(path)
            raise

    monkeypatch.setattr(os, "open", late)
    assert two[1].claim(path)
    monkeypatch.undo()
    assert path.exists() and not two[0].claim(path)


def test_the_lease_of_a_dead_process_is_free_at_once(path, two):
    write(path, place=leases.PLACE, pid=dead_process())
    assert two[0].claim(path)


def test_a_process_number_of_another_container_says_nothing(path, two):
    write(path, place=f"{leases.PLACE}1", pid=dead_process())
    assert not two[0].claim(path)


def test_another_clock_of_the_machine_changes_nothing(path, two, monkeypatch):
    """The file system's clock counts, whatever this machine believes."""
    write(path)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert not two[0].claim(path)


def test_half_a_lease_is_one(path, two):
    """Its holder was killed while it wrote it: nobody knows whose it was, so it has to expire."""
    path.parent.mkdir()
    path.write_text('{"tok')
    assert not two[0].claim(path) and leases.holder(path) == ""
    os.utime(path, (0, 0))
    assert two[0].claim(path)


def test_a_store_that_takes_no_lease_does_not_keep_from_training(path, two):
    path.parent.write_text("in the way")
    assert two[0].claim(path)
    two[0].release(path)


def test_what_is_over_is_cleared(path):
    write(path, place=leases.PLACE, pid=dead_process())
    write(other := path.with_name("other.lease"))
    for lease in (path, other, path.with_name("none.lease")):
        leases.clear(lease)
    assert not path.exists() and other.exists()


def test_of_many_only_one_takes_over(tmp_path):
    """Sixteen threads come upon the same expired lease, forty times."""
    all_of_them = [Leases() for _ in range(16)]
    for round in range(40):
        path = tmp_path / f"{round}.lease"
        write(path, age=1000)
        start, got = threading.Barrier(16), []

        def come(one, path=path, start=start, got=got):
            start.wait()
            if one.claim(path):
                got.append(one)

        threads = [threading.Thread(target=come, args=[one]) for one in all_of_them]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1, round
    for one in all_of_them:
        one.close()
    assert os.listdir(tmp_path) == []
