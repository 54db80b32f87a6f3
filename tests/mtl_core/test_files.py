"""Files and folders are written whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
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
    with pytest.raises(files.CannotWrite, match=r"cannot write .*file/deeper/x.txt: .*is unchanged\. Free some space"):
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
