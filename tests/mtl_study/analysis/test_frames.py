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
