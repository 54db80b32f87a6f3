"""One run: a function of its configuration."""

import contextlib
import dataclasses
import math
from unittest.mock import Mock

import pytest
import torch

from mtl_core import problems, smtos
from mtl_study.experiments import checkpoints, training
from mtl_study.experiments.checkpoints import complete
from mtl_study.experiments.runs import LAST_STEPS, BadConfig, Run, RunConfig

pytestmark = pytest.mark.training

TINY = {"train_size": 300, "val_size": 70, "test_size": 60, "epochs": 2, "batch_size": 128, "lr": 0.002, "seed": 3}
HERE = training.find_device("auto")
NEEDED = {"fixed": {"weights": [0.3, 0.7]}}


def config(**settings):
    return RunConfig.of(**{"problem": "multimnist/CL_RR", **TINY, **settings})


def numbers(run):
    """A record without what may differ between two runs of the same configuration."""
    return run.model_dump(exclude={"seconds", "clock"})


@pytest.mark.parametrize("smto", ["unit_scal", "edm", "graddrop", "rotograd", "auto_lambda", "famo"])
def test_a_run_is_a_function_of_its_configuration(smto):
    """Bit for bit, dropout and randomised methods included; another seed gives other numbers."""
    one, two = (training.train(config(smto=smto, dropout=0.3)) for _ in range(2))
    assert numbers(one) == numbers(two)
    other = training.train(config(smto=smto, dropout=0.3, seed=4))
    assert other.history[0].train_losses != one.history[0].train_losses


def test_seeds_are_paired_across_methods():
    """The same seed gives every method the same weights, batches and dropout masks: ½ : ½ is the uniform loss,
    exactly."""
    uniform = training.train(config(dropout=0.2))
    fixed = training.train(config(smto="fixed", options={"weights": [0.5, 0.5]}, dropout=0.2))
    assert uniform.history == fixed.history


METHODS = [key for key in smtos.keys() if key != "bayesagg_mtl"]  # noqa: SIM118


def test_every_method_starts_from_the_same_losses():
    """One step: the same weights, batch and dropout masks, so the losses before the update agree (RotoGrad's rotations
    start as identities, up to rounding)."""
    one_step = {"epochs": 1, "train_size": 128, "dropout": 0.2}
    first = {
        key: training.train(config(smto=key, options=NEEDED.get(key, {}), **one_step)).history[0].train_losses
        for key in METHODS
    }
    for losses in first.values():
        assert losses == pytest.approx(first["unit_scal"], rel=1e-6)


@pytest.mark.parametrize("smto", METHODS)
def test_every_method_trains(smto):
    """Two epochs end with finite losses, metrics of both splits, and K weights."""
    run = training.train(config(smto=smto, options=NEEDED.get(smto, {})))
    assert run.ended == "finished" and len(run.history) == 2
    for epoch in run.history:
        assert all(math.isfinite(loss) for loss in epoch.train_losses)
        assert 0 <= epoch.val["CL"]["accuracy"] <= 1 and epoch.test["RR"]["mse"] > 0
        assert len(epoch.weights) == len(epoch.head_weights) == 2
        assert set(epoch.gradients) == {"features", "parameters"}


def test_a_model_that_a_method_cannot_work_with_is_refused():
    """BayesAgg-MTL needs heads of one linear layer; LeNet's have two."""
    with pytest.raises(smtos.BadOption, match="head 'CL' holds Linear, Linear"):
        training.train(config(smto="bayesagg_mtl"))


def test_divergence_is_a_result():
    """A loss that is not finite ends the run where it happened; the epochs before it are kept."""
    run = training.train(config(problem="multimnist/RL_RR", lr=1e30))
    assert run.diverged and run.ended.startswith("diverged at epoch 0, step")
    assert run.history == []


def test_a_divergence_keeps_what_the_method_reported_before():
    """IMTL at a step size of 3: its scales explode within a few steps."""
    run = training.train(config(smto="imtl", options={"form": "transposed"}, lr=3.0, train_size=480, batch_size=16))
    epoch, step = (int("".join(filter(str.isdigit, part))) for part in run.ended.split(","))
    assert run.diverged and epoch == 0 and set(run.before_divergence) >= {"alpha_0", "alpha_1"}
    for values in run.before_divergence.values():
        assert 0 < len(values) <= step + 1 and all(value is None or math.isfinite(value) for value in values)
    assert Run.from_line(run.to_line()).before_divergence == run.before_divergence


class WithAnInfinity:
    """A split one of whose samples is broken."""

    def __init__(self, split, broken):
        self.split, self.broken = split, broken

    def __len__(self):
        return len(self.split)

    def batch(self, index, *others):
        x, targets = self.split.batch(index, *others)
        return torch.where((index == self.broken)[:, None, None, None], math.inf, x), targets


def test_the_last_twenty_steps_before_a_divergence_in_their_order():
    """A broken sample in the 30th batch."""
    wanted, reported = config(smto="edm", train_size=480, batch_size=16), []
    with training.determinism(threads=1):
        run = training.Training(wanted, HERE, None)
        broken = torch.randperm(480, generator=torch.Generator().manual_seed(wanted.seed))[-1]
        run.data = {**run.data, "train": WithAnInfinity(run.data["train"], broken)}
        backward = run.smto.backward

        def listen(step):
            applied = backward(step)
            reported.append(training.number(applied.diagnostics["residual"]))
            return applied

        run.smto.backward = listen
        complete(lambda: run, None)
        record = run.record()
    assert record.ended == "diverged at epoch 0, step 29" and len(reported) == 29
    assert record.before_divergence["residual"] == reported[-LAST_STEPS:]


def test_a_run_that_finished_keeps_no_last_steps():
    assert training.train(config(smto="edm", epochs=1)).before_divergence == {}


def test_a_diagnostic_whose_name_begins_with_peak_is_the_largest_of_an_epoch():
    """IMTL on three tasks reports |α| as both; over two steps the mean is halfway to the least."""
    small = {"train_size": 8, "val_size": 4, "test_size": 4, "batch_size": 4, "epochs": 1}
    options = {"width": 64, "slim": 8}
    run = training.train(config(problem="cityscapes/19C", smto="imtl", problem_options=options, **small))
    found = run.history[0].diagnostics
    mean, peak = found["largest_alpha"], found["peak_alpha"]
    assert mean < peak < 2 * mean
    assert training._over_epoch("peak_alpha", [0.5, 2.0, 1.0]) == 2
    assert training._over_epoch("largest_alpha", [0.5, 2.0, 0.5]) == 1


def test_metrics_are_exact_means_over_the_split(monkeypatch):
    """Whatever the evaluation batch: the last, smaller batch counts by its samples."""
    whole = training.train(config())
    in_parts = dataclasses.replace(problems.get("multimnist/CL_RR"), evaluation_batch=32)
    monkeypatch.setitem(problems.PROBLEMS, "multimnist/CL_RR", lambda: in_parts)
    parts = training.train(config())
    for a, b in zip(whole.history, parts.history, strict=True):
        assert a.val["CL"] == b.val["CL"]
        assert a.test["RR"]["mse"] == pytest.approx(b.test["RR"]["mse"], rel=1e-6)


def test_plateau_schedules_follow_the_last_batch_or_the_validation_metrics(monkeypatch):
    """With no patience the step size falls after every epoch that is no better than the best so far, and only then."""
    monkeypatch.setattr(training, "PATIENCE", 0)
    monkeypatch.setattr(training, "LEAST_LR", 1e-9)
    for schedule in ("plateau", "plateau_on_validation"):
        run = training.train(config(epochs=6, schedule=schedule, lr_decay=0.5, lr=0.02))
        lrs = [epoch.lr for epoch in run.history]
        assert set(a / b for a, b in zip(lrs[1:], lrs, strict=False)) <= {0.5, 1.0}
        if schedule == "plateau":
            continue
        first, best, expected = run.history[0].val, math.inf, [0.02]
        for epoch in run.history[:-1]:
            accuracy = first["CL"]["accuracy"] / epoch.val["CL"]["accuracy"]
            signal = (accuracy + epoch.val["RR"]["mse"] / first["RR"]["mse"]) / 2
            improved = signal < best * (1 - 1e-4)
            best = signal if improved else best
            expected.append(expected[-1] * (1 if improved else 0.5))
        assert lrs == pytest.approx(expected)


def test_learning_rate_decays_every_epoch():
    run = training.train(config(epochs=3, lr_decay=0.5))
    assert [epoch.lr for epoch in run.history] == [0.002, 0.001, 0.0005]


def test_single_task_runs_have_no_gradients_to_compare():
    run = training.train(config(problem="multimnist/RR"))
    assert run.history[0].gradients == {} and run.history[0].weights == [1.0]


def test_gradient_statistics_are_those_of_the_joint_graph():
    """The record's norms at the sampled step of the first epoch, against gradients of the plain joint graph."""
    one_step = config(train_size=128, epochs=1)  # one batch: that step is the sample
    run = training.train(one_step)
    problem = problems.get("multimnist/CL_RR")
    data = problem.data.load("embedded", one_step.sizes, None, HERE, torch.float32)["train"]
    with training.determinism(threads=1):
        torch.manual_seed(one_step.seed)
        model = problem.build_model(0.0).to(HERE, memory_format=torch.channels_last)
        x, targets = data.batch(torch.arange(128, device=HERE), problem.task_names)
        z = model.encoder(x)
        for k, (task, head, y) in enumerate(zip(problem.tasks, model.heads.values(), targets, strict=True)):
            g = torch.autograd.grad(task.loss(head(z), y), list(model.encoder.parameters()), retain_graph=True)
            norm = torch.cat([part.flatten() for part in g]).norm().item()
            assert run.history[0].gradients["parameters"].norms[k] == pytest.approx(norm, rel=1e-4)


def with_a_gradient_that_is_not_finite(monkeypatch, at, value=math.inf):
    """After so many steps a method leaves an infinite gradient, while its losses are finite."""
    backward, count = smtos.get("unit_scal").backward, [0]

    def spoilt(self, step):
        applied = backward(self, step)
        if count[0] == at:
            next(iter(step.model.encoder.parameters())).grad.view(-1)[0] = value
        count[0] += 1
        return applied

    monkeypatch.setattr(smtos.get("unit_scal"), "backward", spoilt)


@pytest.mark.parametrize("at", [0, 1, 2, 5])
def test_a_gradient_that_is_not_finite_is_a_divergence_at_that_step(at, monkeypatch):
    """Three steps in each of two epochs; the last step of an epoch and of the run as well."""
    with_a_gradient_that_is_not_finite(monkeypatch, at)
    run = training.train(config())
    assert run.ended == f"diverged at epoch {at // 3}, step {at % 3}" and len(run.history) == at // 3


def test_such_a_gradient_leaves_all_weights_as_they_were(monkeypatch):
    """As on a GPU, where it is read when the epoch ends: the optimizer passes over the step, its count included."""
    with_a_gradient_that_is_not_finite(monkeypatch, 1, math.nan)
    run = training.Training(config(), HERE, None)
    index = next(run._batches())
    run._step(0, index, log := training._EpochLog(run.names, run.device))
    before = [p.clone() for p in run.model.parameters()]
    moments = [s["exp_avg"].clone() for s in run.optimizer.state.values()]
    run.device = torch.device("meta")  # takes the way of a GPU: no look at the numbers
    run._step(1, index, log)
    assert all(map(torch.equal, before, run.model.parameters()))
    assert all(map(torch.equal, moments, (s["exp_avg"] for s in run.optimizer.state.values())))
    assert {int(s["step"]) for s in run.optimizer.state.values()} == {1}
    assert log.first_not_finite() == 1


def test_where_memory_runs_out_it_is_said_what_helps(monkeypatch):
    def full(self, *args):
        words = "GPU 0 has a total capacity of 8.00 GiB of which 1.00 GiB is free. Of the allocated memory …"
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate 2.00 GiB. {words}")

    monkeypatch.setattr(training.Training, "_step", full)
    # Auto-Lambda keeps every task's gradient either way
    for smto, options, helps in (
        *(("cagrad", {}, True), ("cagrad", {"keep_jacobian": False}, False)),
        *(("uw", {}, False), ("auto_lambda", {}, False)),
    ):
        with pytest.raises(
            torch.OutOfMemoryError, match=r"^CUDA out of memory\. Tried to allocate 2.00 GiB\. What helps: fewer runs"
        ) as error:
            training.train(config(smto=smto, **options))
        assert ("keep_jacobian: false (cagrad keeps 2 gradients" in str(error.value)) == helps
        assert "MTL_STREAM" not in str(error.value)  # digits are few


def test_what_says_that_memory_ran_out():
    for words in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"):
        assert checkpoints.out_of_memory(RuntimeError(words))
    assert checkpoints.out_of_memory(torch.OutOfMemoryError("tried to allocate"))
    assert not checkpoints.out_of_memory(RuntimeError("Error(s) in loading state_dict for Net: size mismatch"))


@pytest.mark.parametrize("place", ["load", "to", "_step", "_evaluate", "load_state_dict"])
def test_wherever_memory_runs_out(monkeypatch, tmp_path, place):
    """In loading, where the maps may stay on the host, in setting up, training, evaluating and continuing. A checkpoint
    that could not be continued for that reason is kept."""

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    streets = {"problem": "cityscapes/19C", "problem_options": {"width": 32, "slim": 32}, "batch_size": 4}
    one = config(**streets, train_size=8, val_size=3, test_size=3, epochs=1)
    if place == "load_state_dict":
        training.train(one, checkpoint=tmp_path / "a", keep=True)
    owners = {"load": type(one.definition.data), "to": torch.nn.Module, "load_state_dict": torch.optim.Optimizer}
    monkeypatch.setattr(owners.get(place, training.Training), place, full)
    with pytest.raises(torch.OutOfMemoryError, match=r"What helps: .*, or MTL_STREAM=1") as error:
        training.train(one, checkpoint=tmp_path / "a")
    assert str(error.value).count("What helps") == 1
    monkeypatch.setenv("MTL_STREAM", "1")
    with pytest.raises(torch.OutOfMemoryError, match=r"What helps: fewer runs") as error:
        training.train(one, checkpoint=tmp_path / "a")
    assert "MTL_STREAM" not in str(error.value) and (tmp_path / "a").exists() == (place == "load_state_dict")


def test_a_users_global_settings_change_no_number_and_are_put_back():
    """Default dtype, oneDNN, deterministic mode, precision of products and convolutions, the choice of kernels by their
    speed, autocast, gradients switched off."""
    expected = numbers(training.train(config(dropout=0.1)))
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.enabled = False
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, cudnn.benchmark = True, True
    try:
        with torch.no_grad(), torch.autocast(HERE.type, dtype=torch.bfloat16):
            assert numbers(training.train(config(dropout=0.1))) == expected
            assert not torch.is_grad_enabled() and torch.is_autocast_enabled(HERE.type)
        assert cudnn.allow_tf32 and cudnn.benchmark
        assert torch.get_default_dtype() == torch.float64 and not torch.backends.mkldnn.enabled
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
        torch.backends.mkldnn.enabled = True
        cudnn.allow_tf32, cudnn.benchmark = before


def test_precisions_that_a_user_set_part_by_part_are_put_back():
    """Torch 2.9 and later keep a precision for each part besides the older flags, and refuse to read a flag that says
    otherwise. Inside a run both say the same, float32."""
    backends = torch.backends
    if not hasattr(backends, "fp32_precision"):
        pytest.skip("torch before 2.9")
    parts = [backends, backends.cudnn, backends.mkldnn, backends.cuda.matmul, backends.mkldnn.matmul]
    parts += [backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.conv, backends.mkldnn.rnn]
    untouched = [part.fp32_precision for part in parts]
    for part, value in [*((part, "tf32") for part in parts), (backends.mkldnn.matmul, "bf16"), (parts[5], "ieee")]:
        part.fp32_precision = value
        before = [part.fp32_precision for part in parts]
        try:
            for precision, allowed in (("float32", False), ("tf32", True)):
                with training.determinism(1, precision):
                    assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
                    assert backends.cudnn.allow_tf32 is allowed
                    in_less = [part for part in parts if part.fp32_precision not in ("none", "ieee")]
                    assert in_less == ([backends.cuda.matmul, backends.mkldnn.matmul, *parts[5:7]] if allowed else [])
                assert [part.fp32_precision for part in parts] == before
        finally:
            for one, own in zip(parts, untouched, strict=True):  # a part takes those within it along
                one.fp32_precision = own
    assert [part.fp32_precision for part in parts] == untouched
    assert torch.get_float32_matmul_precision() == "highest" and backends.cudnn.allow_tf32 in (True, False)


def test_mixed_precision_is_a_choice_of_its_own():
    """In bfloat16 the first losses are those of float32 to two digits, and not to six; every kind of method trains."""
    sizes = {"train_size": 16, "val_size": 8, "test_size": 8, "batch_size": 16}
    for smto in ("cagrad", "rotograd", "famo", "auto_lambda"):
        found = [
            training.train(config(smto=smto, epochs=1, precision=precision, **sizes)).history[0].train_losses
            for precision in ("amp", "float32")
        ]
        assert found[0] == pytest.approx(found[1], rel=0.02) and found[0] != pytest.approx(found[1], rel=1e-6)


def test_tf32_is_refused_where_it_would_be_float32(monkeypatch):
    """On a CPU and on an old GPU torch uses float32 without a word."""
    with pytest.raises(BadConfig, match=r"precision = 'tf32' needs an NVIDIA GPU .* the device is 'cpu'"):
        training.train(config(precision="tf32"), "cpu")
    for capability, refused in (((7, 5), True), ((8, 0), False), ((9, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        with pytest.raises(BadConfig) if refused else contextlib.nullcontext():
            training.check_precision("tf32", torch.device("cuda"))
    for precision, allowed in (("tf32", True), ("float32", False)):
        with training.determinism(1, precision):
            assert torch.backends.cudnn.allow_tf32 is allowed
            assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")


def test_the_process_is_left_as_it_was():
    """Thread count and torch's random state."""
    torch.manual_seed(1)
    before = torch.get_num_threads(), torch.get_rng_state()
    training.train(config(epochs=1))
    assert torch.get_num_threads() == before[0] and (torch.get_rng_state() == before[1]).all()


def test_float64_is_a_parameter():
    run = training.train(config(precision="float64", epochs=1, smto="rotograd"))
    assert run.config.precision == "float64" and not run.diverged


@pytest.mark.parametrize(
    "settings",
    [{"smto": "rotograd"}, {"smto": "dwa", "schedule": "plateau_on_validation", "weight_decay": 1e-3}],
    ids=str,
)
def test_a_run_that_took_over_another_goes_on_as_that_one(settings):
    """Network, moments, step size, SMTO, dropout and batch order: the copy's last epochs are the other's, bit for bit,
    whichever of the two comes first; they share no memory."""
    wanted = config(dropout=0.3, epochs=3, **settings)
    whole = training.train(wanted).history
    with training.determinism(threads=1):
        one = training.Training(wanted, HERE, None)
        other = training.Training(config(dropout=0.3, epochs=3, **{**settings, "seed": 9}), HERE, None)
        one.epoch()
        other.epoch()
        other.take_over(one)
        for run in (other, other, one, one):
            run.epoch()
    assert one.history == whole == other.history


def test_an_unknown_device_is_refused():
    with pytest.raises(BadConfig, match=r"'gpu' cannot be used: torch knows no device of that kind\. Use 'auto'"):
        training.train(config(), device="gpu")


def test_a_device_without_float64_is_refused(monkeypatch):
    """What torch 2.14 says on a Mac."""
    words = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
    monkeypatch.setattr(torch, "empty", Mock(side_effect=TypeError(words)))
    with pytest.raises(BadConfig, match=r"'mps' cannot be used: Cannot convert a MPS Tensor .* support float64\. Use"):
        training.find_device("mps")
