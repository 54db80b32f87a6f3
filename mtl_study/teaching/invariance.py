"""Does a run notice in which unit a task's loss is measured? The same short training twice, once with the losses times
constants, and how far the two come apart.

    rows = [compare(setting, pairs, steps=50) for setting in SETTINGS]
    table(rows)

For Adam it is an equivalence, not an invariance: with the gradient α g instead of g, m̂ is α m̂' and v̂ is α² v̂', so

    α m̂' / (√(α² v̂') + ε) = m̂' / (√v̂' + ε/α),      Adam(α, ε, λ) ≡ Adam(1, ε/α, λ/α)

where the decay λ is added to the gradient. A factor that is a power of two rounds nothing, so what is invariant is
then equal to the last bit.

Source of the claims: Elich et al. 2024, arXiv:2311.04698, section 4.1 and appendix A1.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mtl_core import problems, smtos
from mtl_core.smtos.base import ProblemInfo
from mtl_core.smtos.uw import UW
from mtl_core.step import Step
from mtl_study.experiments import inner, training
from mtl_study.experiments.runs import RunConfig

NO_EPSILON = 1e-300  # 0 would give 0/0 where a gradient is exactly 0
DECIMAL, BINARY = (10.0, 0.1), (8.0, 0.125)  # the factors: the paper's, and powers of two
NUDGE = 1e-15  # relative, of the initial parameters: how far rounding alone is carried
BATCH = 32
Units = Sequence[float]


@dataclass(frozen=True)
class Setting:
    """A way to train, and whether theory says that it cannot tell the losses' units.

    group: the claim that it belongs to. frozen: the encoder stays as it is. matched: learnt weights start where the
    units would have brought them. options: of a `RunConfig`.
    """

    name: str
    group: str
    invariant: bool
    options: dict[str, Any] = field(default_factory=dict)
    frozen: bool = False
    matched: bool = False


MOMENTUM = {"optimizer": "sgd", "momentum": 0.9}
NO_EPS = {"eps": NO_EPSILON}
SETTINGS = (
    Setting("SGD", "none", False, {"optimizer": "sgd"}, frozen=True),
    Setting("SGD, momentum", "none", False, MOMENTUM, frozen=True),
    Setting("Adam, ε → 0", "head", True, NO_EPS, frozen=True),
    Setting("Adam, ε = 1e-8", "head, as used", False, {}, frozen=True),
    Setting("Adam, ε → 0, decay 1e-5 in the gradient", "head, as used", False, NO_EPS | {"weight_decay": 1e-5}, True),
    Setting("AdamW, ε → 0, decay 1e-2", "head", True, NO_EPS | {"optimizer": "adamw", "weight_decay": 1e-2}, True),
    Setting("signSGD, momentum", "head", True, MOMENTUM | {"optimizer": "signsgd"}, frozen=True),
    Setting("SGD, momentum", "none", False, MOMENTUM),
    Setting("Adam, ε → 0", "backbone", False, NO_EPS),
    Setting("Adam without memory, ε → 0", "memoryless", False, NO_EPS | {"betas": [0.0, 0.0]}),
    Setting("one Adam per task, ε → 0", "full", True, NO_EPS | {"optimizer": "adam_per_task"}),
    Setting("optimal UW (SI), Adam", "full", True, {"smto": "si"}),
    Setting("optimal UW (SI), SGD, momentum", "full", True, {"smto": "si", **MOMENTUM}),
    Setting("learned UW, Adam", "learned", False, {"smto": "uw"} | NO_EPS),
    Setting("learned UW, Adam, its start matched", "learned", True, {"smto": "uw"} | NO_EPS, matched=True),
)


@dataclass(frozen=True)
class Path:
    """Parameters along a short training: their change after the first step and after the last, flat, float64.

    encoder: [2, P]. heads: per task [2, P_k].
    """

    encoder: Tensor
    heads: tuple[Tensor, ...]


@functools.cache
def batches(problem: str, steps: int, seed: int = 1) -> tuple[Any, ...]:
    """Batches of the problem's embedded training split in float64; every step takes the next of at most 8."""
    definition = problems.get(problem)
    sizes = (8 * BATCH, BATCH, BATCH)
    data = definition.data
    data.prepare("embedded", sizes, None)
    split = data.load("embedded", sizes, None, torch.device("cpu"), torch.float64)["train"]
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed)).split(BATCH)
    found = [split.batch(index, definition.task_names) for index in order]
    return tuple(found[i % len(found)] for i in range(steps))


def train(
    setting: Setting,
    units: Units | Callable[[int], Units] = (1.0, 1.0),
    *,
    steps: int = 50,
    lr: float = 1e-3,
    problem: str = "multimnist/CL_RR",
    seed: int = 1,
    nudge: float = 0.0,
) -> Path:
    """A few steps of training in float64 with the losses of the tasks times `units` (a function of the step, where they
    change).

    Args:
        nudge: every initial parameter is multiplied by 1 + nudge. seed: of the initial parameters and the batches.
    """
    definition = problems.get(problem)
    config = RunConfig.of(problem=problem, seed=seed, epochs=1, lr=lr, precision="float64", **setting.options)
    with training.determinism(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "nothing is shared")
        torch.manual_seed(seed)
        model = definition.build_model(0.0).double()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1 + nudge)
        model.encoder.requires_grad_(not setting.frozen)
        smto = smtos.build(config.smto, len(definition.tasks), **config.options)
        likelihoods = tuple(task.likelihood for task in definition.tasks)
        smto.set_up(ProblemInfo(likelihoods, definition.feature_shape, lr, config.weight_decay), seed=seed)
        smto.double()
        if setting.matched and isinstance(smto, UW) and not callable(units):
            with torch.no_grad():  # L e^(−pη) is the same for L and η as for α L and η + ln(α)/p
                smto.eta.add_(torch.tensor([math.log(u) for u in units], dtype=torch.float64) / smto.power)
        optimizer = inner.build(config, model, smto.parameter_groups(lr))
        per_task = inner.per_task(optimizer)
        parts = [list(model.encoder.parameters()), *(list(head.parameters()) for head in model.heads.values())]
        start, changes = [_flat(part) for part in parts], []
        for number, (x, targets) in enumerate(batches(problem, steps, seed)):
            now = units(number) if callable(units) else units
            losses = [training.scaled(task.loss, unit) for task, unit in zip(definition.tasks, now, strict=True)]
            step = Step(model, losses, x, targets)
            jacobian = step.jacobian if per_task else None
            result = smto.backward(step)
            if per_task is not None and jacobian is not None:
                per_task.see(step, jacobian, result.weights)
            optimizer.step()
            smto.after_step(step)
            if number in (0, steps - 1):
                changes.append([_flat(part) - then for part, then in zip(parts, start, strict=True)])
    encoder, *heads = (torch.stack(of_part) for of_part in zip(*changes, strict=True))
    return Path(encoder, tuple(heads))


def _flat(parameters: Iterable[Tensor]) -> Tensor:
    return torch.cat([p.detach().flatten() for p in parameters])


def apart(one: Path, other: Path, part: str) -> np.ndarray:
    """How far the other path's change is from this one's, relative to it: after the first step and after the last [2].

    part: "encoder" (NaN where it does not move) or "heads", where it is that of the head that comes apart most.
    """
    pairs = [(one.encoder, other.encoder)] if part == "encoder" else list(zip(one.heads, other.heads, strict=True))
    found = [((b - a).norm(dim=1) / a.norm(dim=1)).numpy() for a, b in pairs]
    return np.asarray(np.max(found, axis=0))


def same_bits(one: Path, other: Path) -> bool:
    """Whether two paths are equal to the last bit."""
    pairs = zip((one.encoder, *one.heads), (other.encoder, *other.heads), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def compare(setting: Setting, *, steps: int, **how: Any) -> dict[str, Any]:
    """One row of the table: a setting with and without factors on its losses.

    Returns:
        encoder, heads: relative distance of the whole path under DECIMAL factors; "first …": of the first step.
        bits: whether it is equal to the last bit under BINARY factors (for a matched start: within 1e-12, as ln 8 is
        rounded). control: distance of the heads where nothing but the start differs, by 1e-15.
    """
    plain, decimal, binary = (train(setting, units, steps=steps, **how) for units in ((1.0, 1.0), DECIMAL, BINARY))
    nudged = train(setting, steps=steps, nudge=NUDGE, **how)
    (first_encoder, encoder), (first_heads, heads) = (apart(plain, decimal, part) for part in ("encoder", "heads"))
    close = np.nanmax([apart(plain, binary, part).max() for part in ("encoder", "heads")]) < 1e-12
    return {
        "setting": setting.name,
        "backbone": "frozen" if setting.frozen else "trained",
        "group": setting.group,
        "first encoder": first_encoder,
        "encoder": encoder,
        "first heads": first_heads,
        "heads": heads,
        "bits": close if setting.matched else same_bits(plain, binary),
        "control": apart(plain, nudged, "heads")[1],
        "invariant": setting.invariant,
    }


def table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row per setting, as `compare` has them."""
    return pd.DataFrame(list(rows))


def equivalences(steps: int, factor: float = 8.0, **how: Any) -> Iterator[tuple[str, bool]]:
    """Adam(α, ε, λ) against Adam(1, ε/α, λ/α), to the last bit: a name and whether it holds, with and without decay, of
    the whole network under a common factor and of one head under its own."""
    for decay in (0.0, 1e-5):
        as_used = {"eps": 1e-8, "weight_decay": decay}
        divided = {"eps": 1e-8 / factor, "weight_decay": decay / factor}
        text = f"λ = {decay:g}"
        whole = [
            train(Setting("", "", True, options), units, steps=steps, **how)
            for options, units in ((as_used, (factor, factor)), (divided, (1.0, 1.0)))
        ]
        yield f"the whole network, {text}", same_bits(*whole)
        heads = [
            train(Setting("", "", True, options, frozen=True), units, steps=steps, **how).heads[0]
            for options, units in ((as_used, (factor, 1.0)), (divided, (1.0, 1.0)))
        ]
        yield f"one head, {text}", torch.equal(*heads)


def sizes(settings: Iterable[dict[str, Any]], **how: Any) -> pd.DataFrame:
    """How far DECIMAL factors move heads on a frozen backbone under Adam, for each of these settings ("eps",
    "weight_decay"): a row each, with `apart`, relative."""
    rows = []
    for options in settings:
        setting = Setting("", "", False, options, frozen=True)
        plain, scaled = (train(setting, units, **how) for units in ((1.0, 1.0), DECIMAL))
        rows.append({"eps": math.nan, "weight_decay": math.nan, **options, "apart": apart(plain, scaled, "heads")[1]})
    return pd.DataFrame(rows)


# -- weights that change -----------------------------------------------------------------------------------------------

BETAS = ((0.9, 0.999), (0.9, 0.9), (0.0, 0.0))


def changing_weights(draws: int, steps: int, **how: Any) -> pd.DataFrame:
    """Heads on a frozen backbone under Adam (ε → 0) with weights that change from step to step: at random, up to a
    tenfold either way, or along a ramp: one from a tenth to ten, the other back.

    Returns:
        weights ("random", "ramp"), draw, betas, apart: distance of the path from that with constant weights, relative.
    """
    rows = []
    for draw in range(draws):
        powers = np.random.default_rng(draw).uniform(-1, 1, (steps, 2))
        ramp = np.linspace(-1, 1, steps)[:, None] * np.array([1, -1])
        for betas in BETAS:
            setting = Setting("", "", False, NO_EPS | {"betas": list(betas)}, frozen=True)
            plain = train(setting, steps=steps, seed=draw + 1, **how)
            for kind, logs in (("random", powers), ("ramp", ramp)):
                factors = (10.0**logs).tolist()
                moved = train(setting, factors.__getitem__, steps=steps, seed=draw + 1, **how)
                distance = apart(plain, moved, "heads")[1]
                rows.append({"weights": kind, "draw": draw, "betas": betas, "apart": distance})
    return pd.DataFrame(rows)
