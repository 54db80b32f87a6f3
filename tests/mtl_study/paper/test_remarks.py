"""What the paper remarks, and what its own tables and the mathematics say: the last section of docs/defects.md."""

import numpy as np

from mtl_core.smtos import build
from mtl_study.paper import published


def pull_of_the_longer(smto, lengths, cosine):
    """Its share of Σ w_k |g_k|."""
    lengths = np.array(lengths)
    gramian = np.outer(lengths, lengths) * np.array([[1, cosine], [cosine, 1]])
    pull = smto.solve(gramian) * lengths
    return pull[lengths.argmax()] / pull.sum()


def test_mgda_follows_the_shorter_gradient_and_pcgrad_the_longer():
    mgda, pcgrad = build("mgda", 2, normalize="none"), build("pcgrad", 2)
    np.testing.assert_allclose(pull_of_the_longer(mgda, (1, 4), 0), 0.2)
    np.testing.assert_allclose(pull_of_the_longer(pcgrad, (1, 4), 0), 0.8)
    dice = np.random.default_rng(0)
    for _ in range(200):
        lengths, cosine = 10 ** dice.uniform(-2, 2, 2), dice.uniform(-0.99, 0.99)
        assert pull_of_the_longer(mgda, lengths, cosine) <= 0.5 <= pull_of_the_longer(pcgrad, lengths, cosine)


def test_cdtt_is_below_edm_wherever_the_paper_has_both():
    both = {n: published.table(n).delta_m[["edm", "cdtt"]] for n in ("table_1", "table_3", "table_4")}
    assert all(found.cdtt < found.edm for found in both.values())
    assert both["table_1"].round().tolist() == [-95, -121]
    assert both["table_3"].round(2).tolist() == [-2.3, -2.57] and both["table_4"].round(2).tolist() == [0.25, -1.19]
