"""The loops in README.md and docs/own_loops.md are working ones, with every method."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import mtl_core
from mtl_core import smtos
from mtl_core.balancer import Unmet
from mtl_core.smtos.base import NEEDS
from mtl_core.smtos.registry import keys

REPOSITORY = Path(__file__).parents[1]
TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGE = (REPOSITORY / "docs" / "own_loops.md").read_text(encoding="utf-8")
OPTIONS: dict[str, dict] = {"fixed": {"weights": [0.3, 0.7]}, "bayesagg_mtl": {"warm_up": 1}}


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(text: str, key: str, names: dict[str, Any]) -> None:
    """A page's first block of Python, with another method; where it began is in `start`."""
    code = blocks(text)[0]
    assert code.count('"cagrad"') == code.count("optimizer = torch") == 1
    names["method"] = smtos.build(key, 2, **OPTIONS.get(key, {}))
    code = code.replace('"cagrad"', "method")
    torch.manual_seed(0)
    note = "start = [p.detach().clone() for p in network.parameters()]"
    exec(code.replace("optimizer = torch", f"{note}\noptimizer = torch"), names)


def moved(names: dict[str, Any]) -> list[bool]:
    return [not torch.equal(p, old) for p, old in zip(names["network"].parameters(), names["start"], strict=True)]


@pytest.mark.parametrize("key", keys())
def test_the_loop_takes_a_step_or_says_what_is_missing(key: str) -> None:
    """Every weight has moved; or none, and the message names every call that this method needs."""
    names: dict[str, Any] = {}
    needs = set(smtos.build(key, 2, **OPTIONS.get(key, {})).required()) - {"features", "after_step", "every_task"}
    if not needs:
        run(TEXT, key, names)
        assert moved(names) == [True] * 6
        return
    with pytest.raises(Unmet, match=f"^{key} needs ") as refusal:
        run(TEXT, key, names)
    assert not any(moved(names))
    before = needs & {"lr", "likelihoods", "feature_shape", "heads"} or needs
    assert {need for need, words in NEEDS.items() if words in str(refusal.value)} == before


def test_the_loop_that_serves_every_method_does() -> None:
    """Network and what the method learns by the optimizer move, and it takes three epochs of four steps."""
    for key in keys():
        names: dict[str, Any] = {}
        run(PAGE, key, names)
        assert moved(names) == [True] * 6, key
        assert all(bool(p.any()) for p in names["method"].parameters()), key


def under(heading: str) -> list[str]:
    """The blocks of Python in one section of the page."""
    return blocks(PAGE.split(f"## {heading}\n")[1].split("\n## ")[0])


def given() -> tuple[dict[str, Any], list[nn.Parameter]]:
    """A network with two losses, as the blocks find it."""
    torch.manual_seed(0)
    trunk, heads, x = nn.Sequential(nn.Linear(8, 5), nn.Tanh()), [nn.Linear(5, 1), nn.Linear(5, 1)], torch.randn(9, 8)
    z = trunk(x)
    losses = [(heads[0](z) - x[:, :1]).square().mean(), (heads[1](z) + 3 * x[:, :1]).square().mean()]
    names = {"mtl_core": mtl_core, "trunk": trunk, "losses": losses, "z": z}
    return names, [p for module in (trunk, *heads) for p in module.parameters()]


def gradients_after(code: str) -> list[torch.Tensor | None]:
    names, parameters = given()
    exec(code, names)
    return [p.grad for p in parameters]


@pytest.mark.parametrize("heading", ["Coming from torchjd", "Coming from your own loop"])
def test_all_ways_give_the_same_gradients(heading: str) -> None:
    """To six digits, in single precision; where another library comes along as it is, too."""
    first, *others = (gradients_after(code) for code in under(heading))
    assert len(others) == {"Coming from torchjd": 2}.get(heading, 1)
    for other in others:
        assert_close(other, first, rtol=1e-6, atol=1e-6)


# -- LibMTL ------------------------------------------------------------------------------------------------------------


class CAGrad(nn.Module):
    """Written for LibMTL: CAGrad for two tasks, but that it takes the mean gradient, which it lengthens."""

    def init_param(self) -> None:
        """Nothing."""

    def backward(self, losses: torch.Tensor, **kwargs: Any) -> None:
        grads = self._get_grads(losses)
        length = (1 + kwargs["calpha"]) / (1 + kwargs["calpha"] ** 2)
        self._backward_new_grads(torch.full((2,), length / 2), grads=grads)


class Encoder(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(8, 5), nn.Tanh())


def trained(*codes: str) -> list[torch.Tensor]:
    """How far the blocks under "Coming from LibMTL" move every parameter of encoder and decoders."""
    torch.manual_seed(1)
    x, decoders = torch.randn(4, 9, 8), nn.ModuleDict({"a": nn.Linear(5, 3), "b": nn.Linear(5, 2)})
    batches = [(part, {"a": part[:, :3].argmax(1), "b": (part[:, 0] > part[:, 3]).long()}) for part in x]
    names = {"mtl_core": mtl_core, "torch": torch, "F": F, "Encoder": Encoder, "decoders": decoders, "batches": batches}
    before = [p.detach().clone() for module in (Encoder(), decoders) for p in module.parameters()]
    for code in codes:
        exec(code, names)
    after = [p for module in (names["encoder"], decoders) for p in module.parameters()]
    return [new.detach() - old for new, old in zip(after, before, strict=True)]


def with_theirs(ours: str, adapted: str) -> tuple[str, str]:
    """Our side of the page, with the line of the balancer as the last block has it."""
    made, loop = ours.split("optimizer = ")
    return made + adapted, "optimizer = " + loop


def test_the_side_of_libmtl_is_what_it_takes() -> None:
    """Names and arguments are among those that tests/data/libmtl.json lists."""
    facts = json.loads((REPOSITORY / "tests" / "data" / "libmtl.json").read_text())
    nodes = [node for code in under("Coming from LibMTL") for node in ast.walk(ast.parse(code))]
    imported = {n.module: {a.name for a in n.names} for n in nodes if isinstance(n, ast.ImportFrom)}
    theirs = {module: names for module, names in imported.items() if str(module).startswith("LibMTL")}
    assert len(theirs) == 4 and all(names <= set(facts["names"][module]) for module, names in theirs.items())
    calls = {ast.unparse(n.func): n for n in nodes if isinstance(n, ast.Call)}
    given = {keyword.arg: keyword.value for keyword in calls["Trainer"].keywords}
    assert [*given] == [*facts["Trainer"][:9], "weight_args", "arch_args"]
    weighting, architecture = (ast.literal_eval(given[name]) for name in ("weighting", "architecture"))
    assert architecture in facts["names"]["LibMTL.architecture"]
    assert ast.literal_eval(given["weight_args"]) == facts["arguments"][weighting]
    assert [key.value for key in given["task_dict"].value.keys] == facts["task"]
    train = calls["trainer.train"]
    assert len(train.args) == 2 and [keyword.arg for keyword in train.keywords] == facts["train"][2:3]


def test_what_replaces_libmtls_trainer_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """With our method, and with a class that is written for LibMTL."""
    for name, members in (("LibMTL", {}), ("LibMTL.weighting", {"CAGrad": CAGrad})):
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    _, ours, adapted = under("Coming from LibMTL")
    for codes in ((ours,), with_theirs(ours, adapted)):
        assert all(bool(moved.any()) for moved in trained(*codes))


def test_both_sides_train_alike_where_libmtl_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """To six digits with its own class; with ours, whose dual is solved exactly, to three. Its trainer gets a CPU."""
    trainer = pytest.importorskip("LibMTL.trainer", reason="LibMTL is not in the environment")
    monkeypatch.setattr(trainer, "torch", SimpleNamespace(**vars(torch) | {"device": lambda name: torch.device("cpu")}))
    theirs, ours, adapted = under("Coming from LibMTL")
    expected = trained(theirs)
    assert_close(trained(*with_theirs(ours, adapted)), expected, rtol=1e-6, atol=1e-6)
    assert_close(trained(ours), expected, rtol=1e-3, atol=1e-3)


def test_what_is_measured_and_kept_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The diagnosis in three lines; a line per task in each of four panels."""
    diagnosis, log = under("Look at the gradients")
    exec(diagnosis, given()[0])
    assert len(capsys.readouterr().out.splitlines()) == 3
    names: dict[str, Any] = {}
    run(PAGE, "unit_scal", names)
    exec(log, names)
    assert [len([line for line in ax.lines if not line.get_label().startswith("_")]) for ax in names["axes"]] == [2] * 4
    assert len(names["balance"].log) == 8


def in_lightning(key: str, folder: Path) -> SimpleNamespace:
    """A module of two tasks, a callback with a method, what trains them for so many epochs, and the batches."""
    lightning = pytest.importorskip("lightning", reason="Lightning is not installed")

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.trunk, self.heads = nn.Linear(8, 5), nn.ModuleList([nn.Linear(5, 1), nn.Linear(5, 1)])
            self.autocast: list[bool] = []

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            self.autocast.append(torch.is_autocast_enabled("cpu"))
            self.features = self.trunk(batch[0])
            self.losses = [(head(self.features) - k).square().mean() for k, head in enumerate(self.heads)]
            return torch.stack(self.losses).sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    data = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
    names: dict[str, Any] = {}
    exec(under("In Lightning")[0], names)
    module = Module()
    callback = names["Balance"](mtl_core.Balancer(key, module.trunk.parameters(), 2))

    def fit(epochs: int, path: Path | None = None, **given: Any) -> Any:
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", callbacks=[callback], default_root_dir=folder, **quiet, **given
        )
        loader = torch.utils.data.DataLoader(data, batch_size=4, collate_fn=lambda rows: [torch.stack(rows)])
        trainer.fit(module, loader, ckpt_path=path)
        return trainer

    return SimpleNamespace(module=module, fit=fit, batches=data.split(4), fresh=Module)


@pytest.mark.parametrize("key", ["cagrad", "famo"])
def test_the_callback_trains_in_lightning(key: str, tmp_path: Path) -> None:
    """The same weights as in a plain loop."""
    there = in_lightning(key, tmp_path)
    there.fit(2)
    plain = there.fresh()
    balance, optimizer = mtl_core.Balancer(key, plain.trunk.parameters(), 2), plain.configure_optimizers()
    for _ in range(2):
        for x in there.batches:
            plain.training_step([x], 0)
            optimizer.zero_grad()
            balance.backward(plain.losses, features=plain.features)
            optimizer.step()
            balance.after_step(lambda x=x: plain.training_step([x], 0) and plain.losses)
    assert_close(list(there.module.parameters()), list(plain.parameters()), rtol=0, atol=0)


def test_lightning_continues_from_its_checkpoint(tmp_path: Path) -> None:
    """With the method's state: the same weights as without a break."""
    whole, first, second = (in_lightning("famo", tmp_path) for _ in range(3))
    whole.fit(4)
    first.fit(2).save_checkpoint(tmp_path / "middle.ckpt")
    second.fit(4, tmp_path / "middle.ckpt")
    assert_close(list(second.module.parameters()), list(whole.module.parameters()), rtol=0, atol=0)


def test_lightning_keeps_mixed_precision_and_scales_nothing(tmp_path: Path) -> None:
    """Both looks of FAMO are under autocast; what Lightning would do to a loss of its own is refused."""
    there = in_lightning("famo", tmp_path)
    there.fit(1, precision="bf16-mixed")
    assert there.module.autocast == [True] * 6
    with pytest.raises(ValueError, match="a loss that is not differentiated"):
        in_lightning("famo", tmp_path).fit(1, accumulate_grad_batches=2)


def test_the_gramian_is_answered() -> None:
    """As CAGrad answers it: both tasks gain."""
    ((call, gramian),) = re.findall(r"`(smtos\.build\(.*?\)\.solve\((.*?)\))`", TEXT)
    assert (np.array(eval(gramian)) @ eval(call) > 0).all()


def test_the_switch_for_donated_buffers_can_be_set() -> None:
    """As the page says it, in a Python that has only just started."""
    code = re.findall(r"`(\S*import torch\S+|torch\.\S+ = \w+)`", PAGE)
    assert code[-1].endswith("donated_buffer = False") and len(code) == 2
    subprocess.run([sys.executable, "-c", "\n".join(["import torch", *code])], check=True)
