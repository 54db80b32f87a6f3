"""What a method from outside the package is made of."""

import importlib
import sys

import pytest
import torch

from mtl_core.smtos.base import LossWeighting
from mtl_study.experiments import fingerprints
from mtl_study.experiments.fingerprints import CannotTell, fingerprint

METHOD = """
import dataclasses, functools, re, threading
import numpy as np
import pydantic
import torch
from mtl_core.smtos.base import LossWeighting

@dataclasses.dataclass
class Settings:
    alpha: float

class Model(pydantic.BaseModel):
    alpha: float

def scaled(alpha):
    def scale(losses):
        return alpha * losses
    return scale

def power(losses, alpha):
    return losses**alpha

VALUE = {value}

class Mine(LossWeighting):
    key = "mine"
    {attribute}

    def weights(self, losses):
        return {use}
"""
#: a kind of value, as it is written, and how the method uses it
VALUES = {
    "dict": ('{"alpha": 0.5}', 'VALUE["alpha"] * losses'),
    "nested": ('{"all": [{"alpha": 0.5}]}', "VALUE"),
    "list": ("[0.5, 1]", "VALUE[0] * losses"),
    "array": ("np.array([0.5, 1])", "VALUE"),
    "tensor": ("torch.tensor([0.5, 1], dtype=torch.bfloat16)", "VALUE"),
    "partial": ("functools.partial(power, alpha=0.5)", "VALUE(losses)"),
    "dataclass": ("Settings(0.5)", "VALUE.alpha * losses"),
    "closure": ("scaled(0.5)", "VALUE(losses)"),
    "bound": ("Settings(0.5).__eq__", "VALUE(losses)"),
    "cached": ("functools.lru_cache(lambda: 0.5)", "VALUE() * losses"),
    "module": ("torch.nn.PReLU(init=0.5)", "VALUE(losses)"),
    "pattern": ('re.compile("5")', "VALUE"),
    "model": ("Model(alpha=0.5)", "VALUE.alpha * losses"),
    "generator": ("np.random.default_rng(5)", "VALUE.random()"),
}


def text(value="0.5", use="losses", attribute="pass"):
    return METHOD.format(value=value, use=use, attribute=attribute)


def in_a_cell(source):
    names = {"__name__": "__main__"}
    exec(source, names)
    return names["Mine"]


def in_a_file(path, source):
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module.Mine


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_that_a_method_uses_is_part_of_it(kind):
    value, use = VALUES[kind]
    one = fingerprint(in_a_cell(text(value, use)))
    assert fingerprint(in_a_cell(text(value, use))) == one
    assert fingerprint(in_a_cell(text(value.replace("5", "6"), use))) != one
    attribute = f"own = {value.replace('5', '7')}"
    assert fingerprint(in_a_cell(text(attribute=attribute))) != fingerprint(in_a_cell(text(attribute=f"own = {value}")))


def test_a_value_of_another_cell_counts_as_it_is_now():
    smto = in_a_cell(text('{"alpha": 0.5}', "VALUE"))
    one, values = fingerprint(smto), smto.weights.__globals__["VALUE"]
    values["alpha"] = 3.0
    assert fingerprint(smto) != one
    with fingerprints.held():
        two = fingerprint(smto)
        values["alpha"] = 0.5  # what a method notes while it trains
        assert fingerprint(smto) == two
    assert fingerprint(smto) == one


def test_values_that_hold_themselves_have_an_end():
    smto = in_a_cell(text("[1]", "VALUE"))
    smto.weights.__globals__["VALUE"].append(smto.weights.__globals__["VALUE"])
    assert fingerprint(smto) == fingerprint(smto)


def test_what_cannot_be_told_is_refused_in_a_notebook_only(tmp_path):
    locked = text('{"lock": threading.Lock()}', "VALUE")
    with pytest.raises(CannotTell, match=r"Mine: Mine\.weights\.VALUE\.lock is a lock, of which cannot be told"):
        fingerprint(in_a_cell(locked))
    assert fingerprint(in_a_file(tmp_path / "locked.py", locked))
    with pytest.raises(CannotTell, match=r"Mine\.own is a Tensor"):
        fingerprint(in_a_cell(text(attribute="own = torch.ones(2, device='meta')")))


def test_of_a_file_all_counts_but_comments(tmp_path):
    source = text("list(range(3))", "VALUE")
    one = fingerprint(in_a_file(tmp_path / "mine_a.py", source))
    assert fingerprint(in_a_file(tmp_path / "mine_b.py", f"# the same\n{source}")) == one
    assert fingerprint(in_a_file(tmp_path / "mine_b.py", f"{source}\nUNUSED = 1\n")) != one


def test_files_beside_it_count_too(tmp_path, monkeypatch):
    """Those that it imports, at any depth; not others, nor the package where it lies beside."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, said in {"helper_of_mine": "import deep_of_mine\n", "deep_of_mine": "", "other_of_mine": ""}.items():
        (tmp_path / f"{name}.py").write_text(f"{said}X = 1\n")
    source = f"from helper_of_mine import X\n{text()}"

    def changed(name):
        file = tmp_path / f"{name}.py"
        file.write_text(file.read_text().replace("X = 1", "X = [2]"))
        for module in ("helper_of_mine", "deep_of_mine"):
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        return fingerprint(in_a_file(tmp_path / "mine_c.py", source))

    (tmp_path / "mtl_core.py").write_text("X = 1\n")
    found = [fingerprint(in_a_file(tmp_path / "mine_c.py", source))]
    found += [changed(name) for name in ("other_of_mine", "mtl_core", "deep_of_mine", "helper_of_mine")]
    assert found[0] == found[1] == found[2] and len(set(found)) == 3


def test_the_source_is_that_which_was_loaded(tmp_path):
    """A file that is edited while its class is still the old one does not change it."""
    smto = in_a_file(tmp_path / "mine_d.py", text())
    one = fingerprint(smto)
    (tmp_path / "mine_d.py").write_text(text("0.7"))
    assert fingerprint(smto) == one
    assert fingerprint(in_a_file(tmp_path / "mine_d.py", text("0.7"))) != one
    assert fingerprint(smto) == one


def test_another_process_takes_what_it_is_told():
    class Here(LossWeighting):
        key = "here"

        def weights(self, losses):
            return torch.ones_like(losses)

    with fingerprints.held({Here: "0" * 16}):
        assert fingerprint(Here) == "0" * 16
    assert fingerprint(Here) != "0" * 16
