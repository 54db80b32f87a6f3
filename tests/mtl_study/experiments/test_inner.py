"""The inner optimizer and the units of the losses are settings of a run, and older records keep their names."""

import json

import pytest
import torch
from torch.testing import assert_close

from mtl_study.artifacts import REPOSITORY
from mtl_study.experiments import inner, training
from mtl_study.experiments.runs import BadConfig, RunConfig, _key

TINY = {"train_size": 128, "val_size": 20, "test_size": 20, "epochs": 1, "batch_size": 32, "lr": 0.01, "seed": 0}
OPTIMIZERS = {
    "adam": {},
    "adamw": {"weight_decay": 0.1},
    "sgd": {"momentum": 0.9},
    "signsgd": {"momentum": 0.9, "lr": 0.001},
    "muon": {"momentum": 0.95, "lr": 0.001},
    "adam_per_task": {"betas": [0.8, 0.99]},
}


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", **TINY, **settings})


def test_shipped_records_are_still_found():
    """Its configuration, read as it is now, has the key under which it is stored; of every file each fourth record."""
    found = 0
    for path in (REPOSITORY / "results").rglob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines()[::4]:
            content = json.loads(line)
            settings, numerics = content["record"]["config"], content["record"]["numerics"]
            if "base" in settings:  # not of a run, but of what is done with one
                settings = settings["base"]
                assert "optimizer" not in RunConfig.of(**settings).settings
                continue
            identity = RunConfig.of(**settings).identity | {"numerics": numerics}
            assert _key(identity) == content["key"], path
            found += 1
    assert found > 100


def test_what_says_nothing_new_is_no_part_of_the_key():
    plain, names = config(), ("optimizer", "momentum", "betas", "eps", "units")
    spelt_out = config(optimizer="adam", momentum=-0.0, betas=[0.9, 0.999], eps=1e-8, units=[1.0, 1.0])
    assert spelt_out.key == plain.key and not {*names} & {*plain.identity}
    others = [{"optimizer": name, **settings} for name, settings in OPTIMIZERS.items()] + [{"units": [10.0, 1.0]}]
    assert len({config(**{"lr": 0.01, **settings}).key for settings in others}) == len(others)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sdg"}, "optimizer = 'sdg'"),
        ({"momentum": 0.9}, "momentum = 0.9: optimizer 'adam' has none; sgd, signsgd, muon do"),
        ({"optimizer": "sgd", "betas": [0.8, 0.9]}, "betas = [0.8, 0.9]: optimizer 'sgd' has none"),
        ({"betas": [0.9]}, "betas = [0.9]"),
        ({"units": [1.0]}, "units = [1.0]: multimnist/CL_RR has 2 tasks"),
        ({"units": [1.0, 0.0]}, "units.1 = 0.0"),
        ({"optimizer": "adam_per_task", "keep_jacobian": False}, "keep_jacobian = False: adam_per_task needs"),
    ],
    ids=str,
)
def test_a_setting_that_an_optimizer_does_not_have_is_refused(settings, message):
    with pytest.raises(BadConfig) as error:
        config(**settings)
    assert message in str(error.value)


@pytest.mark.training
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains_decays_its_step_size_and_goes_on_from_where_it_stood(optimizer):
    asked = config(**{"epochs": 3, "smto": "uw", "optimizer": optimizer, **OPTIMIZERS[optimizer]})
    with training.determinism(1):
        whole = training.train(asked, "cpu")
        begun, later = (training.Training(asked, torch.device("cpu"), None) for _ in range(2))
        begun.epoch()
        later.load_state_dict(begun.state_dict())
        while later.unfinished:
            later.epoch()
    assert later.record().history == whole.history
    losses = [sum(epoch.train_losses) for epoch in whole.history]
    assert losses[2] < losses[0] and whole.ended == "finished"
    assert [epoch.lr for epoch in whole.history] == pytest.approx([asked.lr * 0.95**i for i in range(3)])


def steps(optimizer, gradients, start=(1.0, -2.0)):
    p = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    opt = optimizer([p])
    for gradient in gradients:
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        opt.step()
    return p.detach()


def test_sign_sgd_by_hand():
    """Steps of 0.1; with momentum ½ the average after (4, −1) and (−1, −1) is (½, −¾): its sign counts."""
    found = steps(lambda p: inner.SignSGD(p, 0.1, momentum=0.5), [(4.0, -1.0), (-1.0, -1.0)])
    assert_close(found, torch.tensor([0.8, -1.8], dtype=torch.float64))
    assert_close(steps(lambda p: inner.SignSGD(p, 0.1), [(4.0, 0.0)]), torch.tensor([0.9, -2.0], dtype=torch.float64))
    decayed = steps(lambda p: inner.SignSGD(p, 0.1, weight_decay=1.0), [(0.0, 0.0)])
    assert_close(decayed, torch.tensor([0.9, -1.9], dtype=torch.float64))


def test_sign_sgd_is_adam_without_memory():
    gradients = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tolist()
    adam = steps(lambda p: torch.optim.Adam(p, 0.1, betas=(0.0, 0.0), eps=1e-300), gradients)
    assert_close(steps(lambda p: inner.SignSGD(p, 0.1), gradients), adam, rtol=1e-12, atol=0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_gradient_that_is_not_finite_moves_nothing(optimizer):
    """As the training loop tells it on a GPU."""
    asked = config(optimizer=optimizer, **OPTIMIZERS[optimizer])
    model = asked.definition.build_model(0.0)
    built = inner.build(asked, model, [])
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.full_like(p, torch.nan)
    built.found_inf = torch.tensor(1.0)
    built.step()
    for p, was in zip(model.parameters(), before, strict=True):
        assert torch.equal(p.detach(), was)


@pytest.mark.training
def test_one_adam_per_task_is_adam_where_there_is_one_task():
    alone = {"problem": "multimnist/CL", "precision": "float64", "weight_decay": 0.01}
    one, other = (training.train(config(**alone, optimizer=name)) for name in ("adam", "adam_per_task"))
    assert one.history[0].train_losses == pytest.approx(other.history[0].train_losses, rel=1e-6)
    assert one.history[0].test == other.history[0].test


@pytest.mark.training
def test_units_are_a_step_size_under_sgd_and_nothing_under_scale_invariant_rules():
    """Powers of two, so that not a bit changes: a common factor is SGD's step size; SI, and one Adam per task, do not
    see a factor at all; Adam under the uniform loss does."""

    def metrics(**settings):
        (epoch,) = training.train(config(eps=settings.pop("eps", 1e-8), **settings)).history
        return epoch.val, epoch.test

    sgd = {"optimizer": "sgd", "momentum": 0.9}
    assert metrics(**sgd, units=[4.0, 4.0], lr=0.0025) == metrics(**sgd, lr=0.01)
    assert metrics(**sgd, units=[8.0, 0.125]) != metrics(**sgd)
    assert metrics(**sgd, smto="si", units=[8.0, 0.125]) == metrics(**sgd, smto="si")
    each = {"optimizer": "adam_per_task", "eps": 1e-30}
    assert metrics(**each, units=[8.0, 0.125]) == metrics(**each)
    assert metrics(eps=1e-30, units=[8.0, 0.125]) != metrics(eps=1e-30)


@pytest.mark.training
def test_the_record_has_losses_in_the_units_given_and_metrics_in_their_own():
    plain, scaled = (
        training.train(config(smto="si", units=units, epochs=1)).history[0] for units in ([1.0, 1.0], [8.0, 0.125])
    )
    ratio = [a / b for a, b in zip(scaled.train_losses, plain.train_losses, strict=True)]
    assert ratio == pytest.approx([8, 0.125], rel=1e-6) and scaled.val == plain.val
