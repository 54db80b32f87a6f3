"""Code of a reader is stopped where it runs too long or prints without end."""

import signal
import sys
import threading
import time

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from mtl_study.teaching import limits

LATE, LOUD = "stopped after 0.1 seconds", "after it had printed 10,000 characters"


def waits():
    time.sleep(30)


def counts():
    x = 0
    while True:
        x += 1


def catches():
    while True:
        try:
            counts()
        except Exception:
            continue


def catches_all():
    """By an except without a name."""
    while True:
        try:
            sum(range(10))
        except:  # noqa: E722
            continue


def prints():
    while True:
        print("again")


@pytest.mark.parametrize("call", [waits, counts, catches, catches_all])
def test_what_takes_too_long_is_stopped(call):
    start, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    with pytest.raises(limits.Stopped, match=LATE):
        limits.within(0.1, call)
    assert time.monotonic() - start < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0) and signal.getsignal(signal.SIGALRM) is before


def test_an_error_that_python_loses_is_tried_again(monkeypatch):
    """The timer's own is no news to anyone; another one is reported in full, without being stopped on the way."""
    reported = []

    def report(error):
        time.sleep(0.05)
        reported.append(error.exc_type)

    class Working:
        def __del__(self):
            sum(range(100_000))

    class Broken:
        def __del__(self):
            raise KeyError

    def again(kind):
        while True:
            kind()
            sum(range(100_000))

    monkeypatch.setattr(sys, "unraisablehook", report)
    for kind in (Working,) * 5 + (Broken,) * 5:
        with pytest.raises(limits.Stopped, match=LATE):
            limits.within(0.1, lambda kind=kind: again(kind))
    assert set(reported) == {KeyError} and sys.unraisablehook is report


def test_what_prints_without_end_is_stopped(capsys):
    """What came before is shown."""
    with pytest.raises(limits.Stopped, match=LOUD):
        limits.within(60, prints)
    assert len(capsys.readouterr().out) == limits.CHARACTERS


def test_what_is_quick_is_left_alone(capsys):
    assert limits.within(0.1, lambda: print("once") or 3) == 3
    time.sleep(0.2)
    assert capsys.readouterr().out == "once\n"
    with pytest.raises(ZeroDivisionError):
        limits.within(0.1, lambda: 1 / 0)
    time.sleep(0.2)


def test_where_nothing_can_interrupt_it_is_said_how_to(capsys):
    """In a thread, and where there is no such timer."""
    thread = threading.Thread(target=limits.within, args=(0.05, lambda: time.sleep(0.3)))
    thread.start()
    thread.join()
    assert capsys.readouterr().out == (
        "This has taken 0.05 seconds. Does a loop never end? Stop it yourself: Kernel, Interrupt.\n"
    )


@pytest.mark.slow
def test_a_notebook_goes_on(tmp_path):
    cells = [
        "from mtl_study.teaching import marking\nmarking.SECONDS = 0.5\ndef endless(points):\n    while True: pass",
        'marking.check("front_filter", endless)',
        "def loud(points):\n    while True: print(points)",
        'marking.check("front_filter", loud)',
        'print("here")',
    ]
    notebook = new_notebook(cells=list(map(new_code_cell, cells)))
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute(cwd=str(tmp_path))
    said = ["".join(output.text for output in cell.outputs) for cell in notebook.cells]
    assert "stopped after 0.5 seconds" in said[1] and LOUD in " ".join(said[3].split()) and said[4] == "here\n"
