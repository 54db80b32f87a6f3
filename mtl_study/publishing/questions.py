"""Twelve questions before and after the course, as a page of the edition: it marks itself and keeps the answers in the
browser. The questions are in mtl_study/teaching/data/questions.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from mtl_core.names import nearest
from mtl_study.publishing.rendering import TEMPLATES, slug

FILE = Path(__file__).parents[1] / "teaching/data/questions.yaml"
TITLE = "Before and after the course"


class BadQuestion(ValueError):
    """A question that cannot be asked."""


@dataclass(frozen=True)
class Question:
    """where: a notebook without suffix, and the heading of a section. choices: what each says, with the hint for who
    takes it; the right one has none."""

    id: str
    asks: str
    where: tuple[str, str]
    choices: tuple[tuple[str, str], ...]

    @property
    def right(self) -> int:
        """The place of the right choice."""
        return [hint for _, hint in self.choices].index("")

    @property
    def address(self) -> str:
        """Of the section that answers it, from the folder of the edition."""
        return f"notebooks/{self.where[0]}.html#{slug(self.where[1])}"


def read(path: Path = FILE) -> list[Question]:
    """All questions. Raises BadQuestion for one that lacks a part, has no single right choice, or an id twice."""
    found: dict[str, Question] = {}
    for number, raw in enumerate(yaml.safe_load(path.read_text(encoding="utf-8")), start=1):
        question = _question(f"{path}, question {number}", raw)
        if question.id in found:
            raise BadQuestion(f"{path}, question {number}: the id {question.id!r} is taken.")
        found[question.id] = question
    return list(found.values())


def _question(at: str, raw: Any) -> Question:
    wanted = ("id", "asks", "where", "choices")
    for key in raw if isinstance(raw, dict) else ():
        if key not in wanted:
            raise BadQuestion(f"{at}: {key!r} is none of {', '.join(wanted)}{nearest(key, wanted)}.")
    try:
        choices = tuple((str(choice["says"]), str(choice.get("hint", ""))) for choice in raw["choices"])
        notebook, section = map(str, raw["where"])
        question = Question(str(raw["id"]), str(raw["asks"]), (notebook, section), choices)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadQuestion(f"{at}: expected id, asks, where: [notebook, section], choices: [says, hint].") from None
    if sum(not hint for _, hint in choices) != 1:
        raise BadQuestion(f"{at}: one choice, the right one, has to be without a hint.")
    return question


def body(questions: list[Question], titles: dict[str, str]) -> str:
    """The inside of the page.

    Args:
        titles: of the notebooks in the edition, by their names without suffix. To others there is no link.
    """
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True)
    return environment.get_template("questions.html.j2").render(title=TITLE, questions=questions, titles=titles)
