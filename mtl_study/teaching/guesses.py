"""The guesses of a reader, kept in the folder of the notebook, in a small file called student.json.

predict("00_walks", "all end at …")      keeps a guess; `publish` shows it again under the figure of that name
recall("02_seeds")                       prints it again next to an answer that is no figure

Nothing is written before somebody guesses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtl_core.files import CannotWrite, write_json
from mtl_study.execution import has_frontend

FILE = "student.json"


def predict(figure: str, guess: str = "") -> None:
    """Keep a guess, in words, until the figure or table of this name is there, or the answer that recalls it. An empty
    one asks for a guess, where somebody sits at the notebook. Never raises.

    Args:
        figure: the name under which the notebook publishes it, "00_walks", or recalls it.
    """
    guess = str(guess or "").strip()
    if not guess:
        if has_frontend() and not guess_at(figure):
            print("○ No guess yet. Write it between the last two quotation marks, and run this cell again.")
        return
    held = content()
    guesses = held.get("guesses")
    held["guesses"] = {**(guesses if isinstance(guesses, dict) else {}), figure: guess}
    try:
        write_json(Path(FILE), held)
        print("✓ Kept. You will see it again under the figure.")
    except CannotWrite as error:
        print(f"✗ Your guess could not be kept: {error}")


def recall(answer: str) -> None:
    """Print what was guessed about an answer; nothing where nothing was."""
    if guess := guess_at(answer):
        print(f"Your guess: {guess}")


def guess_at(figure: str) -> str:
    """What was guessed about a figure or table; "" where nothing was."""
    guesses = content().get("guesses")
    return str(guesses.get(figure, "")) if isinstance(guesses, dict) else ""


def content() -> dict[str, Any]:
    """What the file holds; nothing where there is none, or where it is damaged."""
    try:
        found = json.loads(Path(FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
