"""How runs are told apart in tables."""

import json

import pytest

from mtl_study.analysis import frames


def test_seeds_share_a_configuration_and_settings_do_not(make_run):
    def config(**settings):
        return frames.configuration(make_run([], **settings).config)

    assert config(seed=1) == config(seed=2)
    assert len({config(), config(lr=0.01), config(smto="edm"), config(options={"c": 0.5})}) == 4
    assert "seed" not in json.loads(config())


def test_a_setting_that_came_later_reads_as_its_default(make_run):
    config = frames.configuration(make_run([], lr=0.01).config)
    assert [frames.setting(config, name) for name in ("lr", "optimizer", "momentum")] == [0.01, "adam", 0.0]
    with pytest.raises(KeyError):
        frames.setting(config, "optimiser")


def test_one_more_seed_takes_what_each_configuration_takes_once(make_run):
    """The fastest seeds, 1 and 4 seconds, whatever the third one did; a run that is given twice counts once."""
    took = {("unit_scal", 1): 1.0, ("unit_scal", 2): 1.0, ("unit_scal", 3): 90.0, ("edm", 1): 4.0, ("edm", 2): 6.0}
    runs = [make_run([], smto=smto, seed=seed).model_copy(update={"seconds": s}) for (smto, seed), s in took.items()]
    assert frames.seconds_per_seed([*runs, *runs[:2]]) == 5.0
    assert frames.seconds_per_seed([]) == 0.0


def test_a_pace_is_over_the_uniform_loss_with_the_same_seed_and_batch_at_the_papers_width(make_run):
    rows = [
        ("unit_scal", 1, {}, 2.0, 2),
        ("unit_scal", 1, {"lr": 0.01}, 4.0, 2),  # with the one above: 1.5 seconds an epoch
        ("unit_scal", 1, {"problem_options": {"width": 2}}, 60.0, 2),
        ("edm", 1, {}, 6.0, 2),
        ("edm", 2, {}, 6.0, 2),  # no uniform loss with this seed
        ("edm", 1, {"batch_size": 8}, 6.0, 2),  # nor with this batch
        ("cagrad", 1, {}, 6.0, 0),  # no epoch
    ]
    metrics = {"CL": 0.8, "RR": 0.5}
    runs = [
        make_run([metrics] * n, smto=smto, seed=seed, **given).model_copy(update={"seconds": seconds})
        for smto, seed, given, seconds, n in rows
    ]
    found = frames.paces(runs)
    assert found.seconds.tolist() == [1, 2, 30, 3, 3, 3]
    assert found.times.round(9).fillna(0).tolist() == [0.666666667, 1.333333333, 20, 2, 0, 0]
