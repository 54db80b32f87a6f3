"""How commands end."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from mtl_core.files import CannotWrite
from mtl_study import artifacts, commands


class Refused(ValueError):
    """A request that cannot be met."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, commands.PASSED),
        (Refused("no such preset"), commands.REFUSED),
        (KeyError("a run"), commands.FAILED),
        (CannotWrite(errno.ENOSPC, "the disk is full"), commands.FAILED),
    ],
    ids=["passed", "refused", "failed", "cannot write"],
)
def test_what_a_command_cannot_do_is_said_in_words(
    error: Exception | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @commands.ends((Refused,), failed=(KeyError,))
    def main(name: str) -> int:
        if error:
            raise error
        print(name)
        return commands.PASSED

    assert main("done") == code
    out, err = capsys.readouterr()
    assert (out, err) == (("", f"{error}\n") if error else ("done\n", ""))


def test_a_fault_of_our_own_keeps_its_traceback() -> None:
    @commands.ends((Refused,))
    def main() -> int:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        main()


def test_a_command_of_the_repository_ends_the_program_with_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.run(lambda: commands.DRIFTED)
    assert ended.value.code == commands.DRIFTED
    monkeypatch.setattr(artifacts, "CHECKOUT", False)
    with pytest.raises(SystemExit, match="works in a checkout of the repository"):
        commands.run(lambda: commands.PASSED)


def test_every_command_of_publishing_is_started_so() -> None:
    started = [
        path.read_text(encoding="utf-8").rpartition('if __name__ == "__main__":')[2]
        for path in (artifacts.REPOSITORY / "mtl_study/publishing").glob("*.py")
        if "__main__" in path.read_text(encoding="utf-8")
    ]
    assert len(started) > 10 and all(end.endswith("\n    commands.run(main)\n") for end in started)


def test_another_broken_pipe_is_told() -> None:
    says = "from mtl_study import commands; commands.run(lambda: (_ for _ in ()).throw(BrokenPipeError('of a worker')))"
    ended = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True)
    assert ended.returncode == 1 and "BrokenPipeError: of a worker" in ended.stderr


@pytest.mark.parametrize("lines", [1, 20_000])
def test_a_command_ends_quietly_where_its_reader_has_gone(lines: int) -> None:
    """As under `| head`: while it prints, or with what is printed last."""
    says = f"from mtl_study import commands; commands.run(lambda: print('a line\\n' * {lines}))"
    command = subprocess.Popen([sys.executable, "-c", says], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout is not None and command.stderr is not None
    command.stdout.close()
    assert (command.stderr.read(), command.wait()) == (b"", commands.UNHEARD)
    command.stderr.close()
