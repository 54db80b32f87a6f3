"""Pictures that answer: one ES module, in browser/, draws a playground for two gradients, or a player for walks.

Where no script runs, on GitHub and on paper, a reader sees the picture. In JupyterLab a widget is there in its place;
on a page that has no kernel the same module draws the same (`mtl_study.publishing.rendering`). It computes in the
browser, by a port of the methods' formulas (`browser/weights.js`), and asks neither a kernel nor a network.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from mtl_study.execution import has_frontend

if TYPE_CHECKING:
    import anywidget
    from matplotlib.figure import Figure

MIME, VIEW = "application/vnd.mtl-study.live+json", "application/vnd.jupyter.widget-view+json"
FILES = (
    "weights.js",
    "elements.js",
    "landscape.js",
    "playground.js",
    "player.js",
    "live.js",
)  # what each imports first


@dataclass(frozen=True)
class Live:
    """What takes the place of a picture: which part of the module, and what it begins with."""

    kind: str
    setup: dict[str, Any]


def text(file: str) -> str:
    """One file of the module."""
    return resources.files("mtl_study.teaching").joinpath("browser", file).read_text(encoding="utf-8")


@cache
def module() -> str:
    """All files as one ES module, which imports nothing."""
    lines = "\n".join(map(text, FILES)).splitlines()
    return "\n".join(line for line in lines if not line.startswith("import ")) + "\n"


def widget(live: Live) -> anywidget.AnyWidget:
    """The widget for JupyterLab."""
    import anywidget
    import traitlets

    class Widget(anywidget.AnyWidget):
        _esm, _css = module(), text("live.css")
        kind = traitlets.Unicode().tag(sync=True)
        setup = traitlets.Dict().tag(sync=True)

    return Widget(**asdict(live))


def bundle(figure: Figure, live: Live) -> dict[str, Any]:
    """A picture and what is live in its place, as the output of a cell; a widget too where somebody sits there."""
    from IPython.core.pylabtools import print_figure

    shown = {"image/png": print_figure(figure, base64=True), "text/plain": repr(figure), MIME: asdict(live)}
    if has_frontend():
        shown[VIEW] = {"version_major": 2, "version_minor": 0, "model_id": widget(live).model_id}
    return shown
