"""Files and folders are written whole or not at all; prepared data prove themselves."""

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from mtl_core import files


def leftovers(folder) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix == ".tmp"]


def test_a_file_is_written_with_its_folder_and_replaced(tmp_path):
    path = tmp_path / "new" / "file.txt"
    files.write_atomically(path, "α\n")
    files.write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert leftovers(path.parent) == []


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A limit on the size of files stops the write halfway, as a disk without space does."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    code = f"""
import resource, signal
from mtl_core import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    files.write_atomically({str(path)!r}, "x" * 2000)
except files.CannotWrite as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"cannot write {path}: {os.strerror(errno.EFBIG)}" in done.stdout
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(
        files.CannotWrite, match=r"cannot write .*file/deeper/x.txt: .*is unchanged\. Free some space.*MTL_ARTIFACTS"
    ):
        files.write_atomically(tmp_path / "file" / "deeper" / "x.txt", "new")
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_named_and_keeps_its_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(files.CannotWrite, match=r"cannot write .*Permission denied"):
            files.write_atomically(path, "new")
    finally:
        tmp_path.chmod(0o700)
    assert path.read_text() == "old"


def test_a_kill_leaves_a_whole_file_and_the_next_write_clears_up(tmp_path):
    """A process that writes the same file over and over is killed: the file is one of those that it wrote, complete."""
    path = tmp_path / "file.txt"
    code = f"""
from mtl_core import files
for i in range(1_000_000):
    files.write_atomically({str(path)!r}, str(i % 10) * 3_000_000)
    print(flush=True)
"""
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        text = path.read_text()
        assert text == text[0] * 3_000_000
    for leftover in (*tmp_path.glob(".*.tmp"), tmp_path / ".other.txt.1234-1.tmp"):  # the second of older code
        leftover.write_text("half")
        os.utime(leftover, (0, 0))
    files.write_atomically(path, "after")
    assert path.read_text() == "after"
    assert leftovers(tmp_path) == []


def test_what_another_container_is_writing_stays(tmp_path):
    """Its process number says nothing here: only age does. A user's own hidden file stays, however old."""
    (tmp_path / ".file.txt.999999999-1.tmp").write_text("in the middle of it")
    (tmp_path / ".mine.tmp").write_text("")
    os.utime(tmp_path / ".mine.tmp", (0, 0))
    files.write_atomically(tmp_path / "file.txt", "after")
    assert sorted(leftovers(tmp_path)) == [".file.txt.999999999-1.tmp", ".mine.tmp"]


WRITERS = """
import sys
from mtl_core import files
for i in range(200):
    files.write_atomically(sys.argv[1], sys.argv[2] * 1000)
"""


def test_several_processes_write_one_file(tmp_path):
    path = tmp_path / "file.txt"
    writers = [subprocess.Popen([sys.executable, "-c", WRITERS, path, letter]) for letter in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert path.read_text() in ("a" * 1000, "b" * 1000, "c" * 1000)
    assert leftovers(tmp_path) == []


def test_a_scratch_folder_goes_with_its_block_and_that_of_a_killed_process_with_the_next(tmp_path):
    """One that is in use by another process stays."""
    code = f"""
import sys, time
from pathlib import Path
from mtl_core import files
with files.scratch("draft-", Path({str(tmp_path)!r})) as folder:
    (folder / "half").write_text("x")
    print(folder, flush=True)
    time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        theirs = Path(process.stdout.readline().strip())
        os.utime(theirs / files.LOCK, (0, 0))
        with files.scratch("draft-", tmp_path) as ours:
            assert ours.is_dir() and (theirs / "half").exists()  # in use
        assert not ours.exists()
        process.kill()
    assert theirs.is_dir()
    with files.scratch("draft-", tmp_path):
        assert not theirs.exists()
    assert list(tmp_path.iterdir()) == []


# Prepared data


def write_numbers(folder: Path) -> None:
    (folder / "deeper").mkdir()
    (folder / "deeper" / "numbers.txt").write_text("0123456789" * 1000)


def flip(file: Path) -> None:
    file.write_text("1123456789" * 1000)


def flip_and_hide(file: Path) -> None:
    """Such that only the contents tell: same size, same date; in another process."""
    date = file.stat().st_mtime_ns
    flip(file)
    os.utime(file, ns=(date, date))
    files._compared.clear()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:5000]),
        lambda file: file.unlink(),
        flip,
        flip_and_hide,
        lambda file: (file.parents[1] / files.MANIFEST).unlink(),
        lambda file: (file.parents[1] / files.MANIFEST).write_text('{"about": nu'),
        lambda file: (file.parents[1] / files.MANIFEST).write_text("[1]"),
        lambda file: (file.parents[1] / files.MANIFEST).write_text(
            '{"deeper/numbers.txt": 10000}'
        ),  # an older version's
        lambda file: shutil.rmtree(file.parents[1]) or file.parents[1].write_text("a file"),
    ],
)
def test_prepared_data_are_made_once_and_anew_where_they_were_damaged(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("MTL_DATA", str(tmp_path))
    folder, file = tmp_path / "cache", tmp_path / "cache" / "deeper" / "numbers.txt"
    files.prepared(folder, write_numbers)
    first = file.stat().st_mtime_ns
    assert files.prepared(folder, write_numbers) == folder and file.stat().st_mtime_ns == first
    damage(file)
    with pytest.warns(UserWarning, match=f"{folder} is damaged"):
        files.prepared(folder, write_numbers)
    assert file.read_text() == "0123456789" * 1000
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_contents_are_read_once_per_process_and_again_where_a_date_says_so(tmp_path, monkeypatch):
    folder, summed = tmp_path / "cache", []
    files.prepared(folder, write_numbers)
    monkeypatch.setattr(files, "checksum", lambda file: summed.append(file.name) or zlib.crc32(file.read_bytes()))
    for _ in range(3):
        assert files.is_whole(folder)
    assert summed == ["numbers.txt"]
    os.utime(folder / "deeper" / "numbers.txt", (0, 0))  # as after a copy
    assert files.is_whole(folder) and files.is_whole(folder) and summed == ["numbers.txt"] * 2


def test_of_data_whose_preparation_fails_nothing_stays(tmp_path):
    def fail(to: Path) -> None:
        write_numbers(to)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        files.prepared(tmp_path / "cache", fail)
    assert list(tmp_path.iterdir()) == []


def test_outside_of_the_cache_nothing_of_others_is_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    files.prepared(tmp_path / "mine", write_numbers, {"n": 1})  # it was empty
    for taken in (tmp_path / "mine", tmp_path):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(FileExistsError, match=r"holds (\{'n': 1\}|no files\.json), asked for \{'n': 2\}"):
            files.prepared(taken, write_numbers, {"n": 2})
        assert sorted(tmp_path.rglob("*")) == before


def fill(folder: Path) -> int:
    """What one of several processes does that all want the same data."""
    for k in range(20):
        assert (files.prepared(folder / str(k), write_numbers) / "deeper" / "numbers.txt").stat().st_size == 10_000
    return 20


def test_a_scratch_folder_may_end_while_another_process_looks_at_it(tmp_path, monkeypatch):
    (tmp_path / ".x-1").mkdir()
    look = files._abandoned
    monkeypatch.setattr(files, "_abandoned", lambda folder: (folder.rmdir(), look(folder))[1])
    with files.scratch(".x-", tmp_path) as place:
        assert place.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_processes_may_prepare_at_once(tmp_path):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(fill, [tmp_path, tmp_path]) == [20, 20]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(map(str, range(20)))


def test_errors_of_the_disk_name_the_variable_to_set_and_others_stay_as_they_are(tmp_path):
    """A place that is no folder; a disk that is full, or takes nothing, in the middle; an error of the data."""
    (tmp_path / "file").write_text("")
    advice = "MTL_DATA is the environment variable for prepared data, MTL_ARTIFACTS .* `store`"
    with pytest.raises(files.CannotWrite, match=f"cannot write .*file/deeper/cache: .*{advice}"):
        files.prepared(tmp_path / "file" / "deeper" / "cache", write_numbers)

    def raises(error):
        def write(to):
            raise error

        return write

    for number in (errno.ENOSPC, errno.EROFS):
        with pytest.raises(files.CannotWrite, match=rf"cannot write .*cache: {os.strerror(number)}\. .*MTL_DATA"):
            files.prepared(tmp_path / "cache", raises(OSError(number, os.strerror(number))))
    with pytest.raises(FileNotFoundError, match=r"^no such data$"):
        files.prepared(tmp_path / "cache", raises(FileNotFoundError("no such data")))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
