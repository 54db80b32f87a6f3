"""The page for the wall names every method."""

from __future__ import annotations

from matplotlib.text import Text

from mtl_core import smtos
from mtl_study import look
from mtl_study.plots import canvas
from mtl_study.plots import proofs as figures
from mtl_study.teaching import proofs
from mtl_study.teaching.toys import Pair

UNSCALED = {"mgda": {"normalize": "none"}, "fixed": {"weights": [0.5, 0.5]}}
PAIRS = [Pair(angle, ratio) for angle in (40, 120, 160) for ratio in (0.3, 1.0, 2.5)]


def test_every_method_is_named_on_the_page_for_the_wall():
    without = {"rlw_normal": "dice", "rlw_dirichlet": "dice", "graddrop": "coins"}
    without |= {"auto_lambda": "a second batch", "bayesagg_mtl": "last layers", "moco": "earlier steps"}
    without |= {"modo": "further batches", "sdmgrad": "further batches"}
    groups = proofs.same_field(look.in_order(set(smtos.keys()) - set(without)), PAIRS, UNSCALED)
    axes = figures.fields(groups, without, UNSCALED, resolution=5)
    lines = [line for text in canvas.figure_of(axes).findobj(Text) for line in text.get_text().splitlines()]
    named = {line.split(":")[0] for line in lines}
    assert {look.label(key) for key in smtos.keys()} <= named  # noqa: SIM118
