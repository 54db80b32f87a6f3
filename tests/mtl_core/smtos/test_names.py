"""Methods by the names of other libraries, and by their classes."""

from __future__ import annotations

import copy

import pytest
import torch

from mtl_core.options import BadOption
from mtl_core.smtos.aligned_mtl import AlignedMTL
from mtl_core.smtos.cagrad import CAGrad
from mtl_core.smtos.imtl import IMTLG
from mtl_core.smtos.registry import build, get, keys

SPELLED = {
    "unit_scal": ["EW", "LS", "Mean", "Sum", "LinearScalarization"],
    "aligned_mtl": ["AlignedMTL", "Aligned_MTL", "Aligned-MTL"],
    "auto_lambda": ["AutoLambda", "Auto-Lambda"],
    "bayesagg_mtl": ["BayesAggMTL", "BayesAgg-MTL"],
    "cagrad": ["CAGrad", "CA-Grad"],
    "cdtt": ["CDTT"],
    "config": ["ConFIG"],
    "db_mtl": ["DB_MTL", "DBMTL"],
    "dwa": ["DWA", "DynamicWeightAverage"],
    "edm": ["EDM"],
    "excess_mtl": ["ExcessMTL"],
    "fairgrad": ["FairGrad"],
    "famo": ["FAMO"],
    "fixed": ["Constant"],
    "gated": ["Gated"],
    "gls": ["GLS"],
    "go4align": ["GO4Align"],
    "graddrop": ["GradDrop"],
    "gradnorm": ["GradNorm"],
    "gradvac": ["GradVac"],
    "imgrad": ["IMGrad"],
    "imtl": ["IMTL"],
    "imtl_g": ["IMTLG", "IMTL-G"],
    "imtl_l": ["IMTL_L"],
    "ldc_mtl": ["LDC-MTL"],
    "mgda": ["MGDA"],
    "mgda_ub": ["MGDA_UB", "MGDA-UB"],
    "moco": ["MoCo"],
    "modo": ["MoDo"],
    "nash_mtl": ["NashMTL", "Nash_MTL", "Nash-MTL"],
    "pcgrad": ["PCGrad"],
    "rlw_dirichlet": ["RLW-Dirichlet"],
    "rlw_normal": ["RLW", "Random"],
    "rotograd": ["RotoGrad"],
    "sdmgrad": ["SDMGrad", "SDM-Grad"],
    "si": ["scaleinvls"],
    "stch": ["STCH"],
    "upgrad": ["UPGrad"],
    "uw": ["UW", "uncertainty", "UncertaintyWeighting"],
}


def test_every_other_spelling_gets_the_hint_for_its_key() -> None:
    for key, names in SPELLED.items():
        for name in [*names, get(key).__name__]:
            with pytest.raises(BadOption, match=f"no SMTO called '{name}' .did you mean '{key}'"):
                get(name)
    assert sorted(SPELLED) == keys()


def test_a_constructor_is_build_with_types() -> None:
    """By name or by place, from the same signature."""
    for smto in (CAGrad(num_tasks=2, c=0.4), CAGrad(2, 0.4)):
        assert type(smto) is type(build("cagrad", 2, c=0.4)) and smto.c == 0.4


def test_a_constructor_refuses_what_build_refuses_in_the_same_words() -> None:
    for smto, wrong in (
        (CAGrad, {"c": -0.1}),
        (CAGrad, {"c": "0.5"}),
        (CAGrad, {"C": 0.5}),
        (CAGrad, {"num_tasks": 2.0}),
        (CAGrad, {"num_tasks": 0}),
        (IMTLG, {"form": "released"}),
        (AlignedMTL, {"scale": "mean"}),
    ):
        said = []
        for make in (smto, lambda smto=smto, **given: build(smto.key, **given)):
            with pytest.raises(BadOption) as caught:
                make(**{"num_tasks": 2} | wrong)
            said.append(str(caught.value))
        assert said[0] == said[1]
    with pytest.raises(BadOption, match=r"cagrad: option c = -1.0"):
        CAGrad(2, -1.0)
    with pytest.raises(TypeError, match="num_tasks"):
        CAGrad()


def test_a_copy_is_a_copy() -> None:
    smto = build("gradvac", 2, beta=0.3)
    smto.solve(torch.tensor([[1.0, 0.5], [0.5, 1.0]]).numpy())
    twin = copy.deepcopy(smto)
    assert twin.beta == 0.3 and (twin.targets == smto.targets).all() and twin.targets is not smto.targets
