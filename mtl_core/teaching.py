"""What the notebooks teach with: code shown as it ran, answers checked, and losses small enough to be drawn.

show_source(EDM.weights)                   the code of a function, a class or a whole file, as it lies on disk
check(answer, 0.5, hint="…")               feedback on an exercise; a wrong answer raises AssertionError
walk(toy, smtos.build("edm", 2), …)        gradient descent on two losses of two parameters, by any method
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl_core import notebooks
from mtl_core.artifacts import REPOSITORY
from mtl_core.smtos.base import SMTO, GramianWeighting, Likelihood, LossWeighting, Setting, nearest
from mtl_core.step import MultiTaskModel, Step

if TYPE_CHECKING:
    from IPython.display import Markdown

# -- the notebook and its reader ---------------------------------------------------------------------------------------


def has_frontend() -> bool:
    """Whether somebody sits at this notebook, so that sliders make sense.

    Every request to run a cell says whether its sender could answer a question of the code (`allow_stdin`): JupyterLab,
    the classic notebook and VS Code say yes; papermill and nbconvert, which run a notebook with nobody there, say no.
    """
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)  # None in a plain interpreter and in a terminal
    request = kernel.get_parent("shell") if kernel is not None else {}
    return bool(request.get("content", {}).get("allow_stdin", False))


def sliders_wanted(interactive: str) -> bool:
    """Whether a notebook shall show its sliders: "always", "never", or "auto", where somebody sits at it.

    Raises:
        ValueError: another word.
    """
    answers = {"always": True, "never": False, "auto": has_frontend()}
    if interactive not in answers:
        raise ValueError(
            f"interactive is {interactive!r}{nearest(interactive, answers)}; expected one of: {', '.join(answers)}."
        )
    return answers[interactive]


def show_source(shown: Any) -> Markdown:
    """The code of a function, a method, a class, or (for a module) of a whole file, with the place where it lies.

    Raises:
        TypeError: there is no Python source for it.
    """
    from IPython.display import Markdown

    shown = inspect.unwrap(shown) if callable(shown) else shown
    try:
        lines, first = inspect.getsourcelines(shown)
        file = inspect.getsourcefile(shown) or ""
    except (TypeError, OSError):
        raise TypeError(
            f"{shown!r} has no Python source to show; give a module, or a class or function that is written in Python."
        ) from None
    source, path = textwrap.dedent("".join(lines)).rstrip(), Path(file)
    fence = "```"
    while fence in source:
        fence += "`"
    place = ""
    if path.is_relative_to(REPOSITORY):
        place = f"`{path.relative_to(REPOSITORY).as_posix()}`" + ("" if first <= 1 else f", line {first}") + "\n\n"
    return Markdown(f"{place}{fence}python\n{source}\n{fence}")


def reading_list(here: str, folder: Path = REPOSITORY / "notebooks") -> Markdown:
    """Links to the notebooks that exist, in reading order, with their titles.

    Args:
        here: name of the notebook that shows the list; it stands there without a link.
    """
    from IPython.display import Markdown

    suffix = ".ipynb" if has_frontend() else ".html"  # beside an executed notebook lies its page
    lines = []
    for path in notebooks.find(folder):
        title = notebooks.title(notebooks.read(path))
        link = f"{title} (you are here)" if path.stem == here else f"[{title}]({path.stem}{suffix})"
        lines.append(f"* {path.stem[:2]}: {link}")
    return Markdown("\n".join(lines))


# -- exercises ---------------------------------------------------------------------------------------------------------


def unanswered(answer: Any) -> bool:
    """Whether an exercise still holds what it was handed out with: None or `...`."""
    return answer is None or answer is ...


def check(answer: Any, expected: Any, hint: str = "", tolerance: float = 1e-6) -> None:
    """Feedback on an answer: a number, a word, a set of words or an array. `None` and `...` count as not answered yet.

    Args:
        hint: what to think about, shown with a wrong answer; the right one is not given away.
        tolerance: of numbers, relative to the expected ones (absolute where those are below 1).

    Raises:
        AssertionError: the answer is wrong.
    """
    __tracebackhide__ = True
    if unanswered(answer):
        print("○ Not answered yet.")
        return
    if not same(answer, expected, tolerance):
        raise AssertionError(f"Not yet. Your answer is {describe(answer)}.{_hint(hint)}")
    print("✓ Right.")


def check_function(
    function: Callable[..., Any] | None,
    expected: Callable[..., Any],
    inputs: Sequence[Any],
    hint: str = "",
    tolerance: float = 1e-6,
) -> None:
    """Feedback on a function of one argument: it must agree with another one on every input. `None`, or a function that
    returns `None` or `...`, counts as not answered yet.

    Raises:
        AssertionError: it does not, or it fails; the message shows the input.
    """
    __tracebackhide__ = True
    if function is None:
        print("○ Not answered yet.")
        return
    for given in inputs:
        try:
            answer = function(given)
        except Exception as error:
            raise AssertionError(
                f"Not yet. For {describe(given)} your code stops: {type(error).__name__}: {error}{_hint(hint)}"
            ) from error
        if unanswered(answer):
            print("○ Not answered yet.")
            return
        if not same(answer, expected(given), tolerance):
            raise AssertionError(
                f"Not yet. For {describe(given)} your code gives {describe(answer)}, expected "
                f"{describe(expected(given))}.{_hint(hint)}"
            )
    print(f"✓ Right, on all {len(inputs)} inputs.")


def same(answer: Any, expected: Any, tolerance: float = 1e-6) -> bool:
    """Whether an answer is the expected one: words in any case, sets in any order, numbers within the tolerance."""
    if isinstance(expected, str):
        return isinstance(answer, str) and answer.strip().casefold() == expected.strip().casefold()
    if isinstance(expected, bool | np.bool_):
        return isinstance(answer, bool | np.bool_) and bool(answer) == bool(expected)
    if isinstance(expected, set | frozenset):
        return isinstance(answer, set | frozenset | list | tuple) and set(answer) == expected
    truth = np.asarray(expected, dtype=float)
    try:
        given = np.asarray(answer, dtype=float)
    except (TypeError, ValueError):
        return False
    if given.shape != truth.shape or not np.isfinite(given).all():
        return False
    return bool((np.abs(given - truth) <= tolerance * np.maximum(1, np.abs(truth))).all())


def describe(value: Any) -> str:
    """A value as a reader wants to see it: numbers to four digits, anything else cut short."""
    try:
        if isinstance(value, str | bool):
            raise TypeError
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return textwrap.shorten(repr(value), 100, placeholder=" …")
    return np.array2string(array, precision=4, separator=", ", suppress_small=True).replace("\n", "")


def _hint(hint: str) -> str:
    return f" Hint: {hint}" if hint else ""


# -- Gramian in, weights out; losses in, weights out -------------------------------------------------------------------


def weigh(smto: SMTO, gramian: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The weights [K] that a method gives to K tasks with this Gramian [K, K] and these losses [K].

    Raises:
        TypeError: the method needs to see more than these two.
    """
    if isinstance(smto, GramianWeighting):
        return smto.solve(gramian, losses)
    if isinstance(smto, LossWeighting):
        return smto.weights(torch.as_tensor(losses)).numpy()
    raise TypeError(f"{smto.key} is a function of neither the Gramian nor the losses: it reads {smto.space}.")


@dataclass(frozen=True)
class Pair:
    """Two tasks as far as a method with a Gramian and losses can see them.

    angle: between the gradients, degrees. ratio: |g_1| : |g_2|. loss_ratio: L_1 : L_2. length, loss: geometric means.
    """

    angle: float
    ratio: float
    loss_ratio: float = 1.0
    length: float = 1.0
    loss: float = 1.0

    @classmethod
    def of(cls, gramian: np.ndarray, losses: np.ndarray) -> Pair:
        """The pair with this Gramian [2, 2] and these losses [2]."""
        first, second = np.sqrt(np.diagonal(gramian))
        cosine = np.clip(gramian[0, 1] / (first * second), -1, 1)
        (a, b), angle = losses, float(np.rad2deg(np.arccos(cosine)))
        return cls(angle, float(first / second), float(a / b), float(np.sqrt(first * second)), float(np.sqrt(a * b)))

    @property
    def gradients(self) -> np.ndarray:
        """J [2, 2]: two vectors of a plane, symmetric about the vertical, −g_1 to the left and both −g_k upwards."""
        half = np.deg2rad(self.angle / 2)
        units = np.array([[np.sin(half), -np.cos(half)], [-np.sin(half), -np.cos(half)]])
        return self.length * np.sqrt([[self.ratio], [1 / self.ratio]]) * units

    @property
    def gramian(self) -> np.ndarray:
        """G = J Jᵀ [2, 2]."""
        return self.gradients @ self.gradients.T

    @property
    def losses(self) -> np.ndarray:
        """L [2]."""
        return self.loss * np.sqrt([self.loss_ratio, 1 / self.loss_ratio])


# -- losses small enough to be drawn -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bowl:
    """L(θ) = lowest + ½ Σ_i curvature_i (θ_i − minimum_i)² of two parameters."""

    minimum: tuple[float, float]
    curvature: tuple[float, float]
    lowest: float = 0.0

    def loss(self, theta: Any) -> Any:
        """Points [..., 2] to losses [...], of numpy or of torch."""
        x, y = theta[..., 0] - self.minimum[0], theta[..., 1] - self.minimum[1]
        return self.lowest + (self.curvature[0] * x**2 + self.curvature[1] * y**2) / 2

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """Points [..., 2] to gradients [..., 2]."""
        return np.asarray(self.curvature) * (np.asarray(theta) - self.minimum)

    def scaled(self, factor: float) -> Bowl:
        """The same loss in other units."""
        a, b = self.curvature
        return Bowl(self.minimum, (factor * a, factor * b), factor * self.lowest)


@dataclass(frozen=True)
class Slope:
    """L(θ) = level + direction · θ: a loss whose value and gradient at θ = 0 can be chosen freely."""

    direction: tuple[float, float]
    level: float = 1.0

    def loss(self, theta: Any) -> Any:
        """Points [..., 2] to losses [...], of numpy or of torch."""
        return self.level + self.direction[0] * theta[..., 0] + self.direction[1] * theta[..., 1]

    def gradient(self, theta: np.ndarray) -> np.ndarray:
        """Points [..., 2] to gradients [..., 2]."""
        return np.broadcast_to(np.asarray(self.direction, dtype=float), np.shape(theta)).copy()


@dataclass(frozen=True)
class Toy:
    """K tasks that share two parameters θ and nothing else: every head hands θ on as it is."""

    tasks: tuple[Bowl | Slope, ...]

    def losses(self, theta: np.ndarray) -> np.ndarray:
        """Points [..., 2] to losses [..., K]."""
        return np.stack([task.loss(np.asarray(theta, dtype=float)) for task in self.tasks], axis=-1)

    def jacobian(self, theta: np.ndarray) -> np.ndarray:
        """A point [2] to J [K, 2]; row k is the gradient of task k."""
        return np.stack([task.gradient(np.asarray(theta, dtype=float)) for task in self.tasks])

    def gramian(self, theta: np.ndarray) -> np.ndarray:
        """A point [2] to G = J Jᵀ [K, K]."""
        jacobian = self.jacobian(theta)
        return jacobian @ jacobian.T

    @property
    def bowls(self) -> tuple[Bowl, ...]:
        """The tasks, where all of them have a minimum. Raises TypeError otherwise."""
        bowls = tuple(task for task in self.tasks if isinstance(task, Bowl))
        if len(bowls) < len(self.tasks):
            raise TypeError("a slope has no minimum: only a toy that is made of bowls has minima and a Pareto set.")
        return bowls

    def pareto_set(self, points: int = 201) -> np.ndarray:
        """Where neither of two bowls can get better without the other getting worse [points, 2]: the minima of
        (1 − t) L_1 + t L_2 for t from 0 to 1."""
        t = np.linspace(0, 1, points)[:, None]
        first, second = self.bowls
        a, b = (1 - t) * np.asarray(first.curvature), t * np.asarray(second.curvature)
        return (a * np.asarray(first.minimum) + b * np.asarray(second.minimum)) / (a + b)


@dataclass(frozen=True)
class Walk:
    """What gradient descent with some method did.

    points: θ before every step and at the end [T + 1, 2]. losses: there [T + 1, K]. weights: of every step, NaN where
    the method has none [T, K]. updates: what the optimizer was given; the step is −lr times it [T, 2].
    """

    points: np.ndarray
    losses: np.ndarray
    weights: np.ndarray
    updates: np.ndarray


class _Point(nn.Module):
    """An "encoder" whose features are its two parameters, whatever the input."""

    def __init__(self, start: Sequence[float]) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([list(map(float, start))]))

    def forward(self, x: Tensor) -> Tensor:
        return self.theta * 1.0


def walk(
    toy: Toy,
    smto: SMTO,
    start: Sequence[float],
    lr: float,
    steps: int,
    hold: bool = False,
    second_batch: Toy | None = None,
    seed: int = 1,
) -> Walk:
    """Plain gradient descent on the toy, steered by a method: its own `backward` on a `Step`, as in training. All steps
    belong to one epoch.

    Args:
        start: θ at the start.
        lr: length of a step over that of the update.
        hold: put θ back after every step, to see what a method learns while it stays in one place.
        second_batch: the losses on "another batch" of the same data, for Auto-Lambda; the same ones where None.
        seed: of the method's own generator.
    """
    encoder = _Point(start)
    theta = encoder.theta
    model = MultiTaskModel(encoder, {f"task {k + 1}": nn.Identity() for k in range(len(toy.tasks))})
    likelihoods: list[Likelihood] = ["gaussian"] * len(toy.tasks)
    smto.set_up(Setting(tuple(likelihoods), feature_shape=(2,), lr=lr, weight_decay=0.0), seed)
    optimizer = torch.optim.SGD([{"params": [theta]}, *smto.parameter_groups(lr)], lr=lr)
    nothing, other = torch.zeros(1), second_batch or toy
    loss_functions = [lambda z, task: task.loss(z[0])] * len(toy.tasks)  # a task is its own "target"
    points, losses, weights, updates = [], [], [], []
    for _ in range(steps):
        before = theta.detach().clone()
        step = Step(
            model,
            loss_functions,
            nothing,
            toy.tasks,  # type: ignore[arg-type]
            adapt=smto.adapt,
            another=lambda: (nothing, other.tasks),  # type: ignore[arg-type, return-value]
            replay=smto.replay,
        )
        applied = smto.backward(step)
        points.append(before[0])
        losses.append(step.losses)
        weights.append(applied.weights.detach())
        assert theta.grad is not None
        updates.append(theta.grad[0].clone())
        optimizer.step()
        smto.after_step(step)
        if hold:
            theta.data.copy_(before)
    points.append(theta.detach()[0].clone())
    end = torch.stack([task.loss(points[-1]) for task in toy.tasks])

    def array(rows: list[Tensor]) -> np.ndarray:
        return torch.stack([row.double() for row in rows]).numpy()

    return Walk(array(points), array([*losses, end]), array(weights), array(updates))
