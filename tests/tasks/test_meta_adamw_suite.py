"""MetaAdamW, its controls and its suites, in the evaluation loop."""

import jax
import numpy as np
import pytest
from toys import regression

import mada_optax
from tasks.functional import functional
from tasks.models.minigpt import MiniGPT
from tasks.models.translator import Translator
from tasks.optimizers import resolve, resolve_all
from tasks.suites import get_suite
from tasks.suites.meta_adamw import optimizers
from tasks.training import Program

OPTIONS = {"attn_layers": 1, "attn_heads": 6, "attn_hidden_dim": 4}


def test_meta_adamw_and_its_controls_in_the_training_loop():
    task, steps, first, moved = regression(), 3, {}, {}
    for optimizer in resolve_all(optimizers(1e-2, 2, **OPTIONS))[1:]:
        program = Program(task, optimizer.build(task, steps), (0, 1), steps)
        states = []
        for start, stop in ((0, 1), (1, 3)):
            program.advance(start, stop)
            states.append(jax.device_get(program._carry.opt_state))
        first[optimizer.name], last = states
        hyperparams = (jax.tree.leaves(state.hyperparams) for state in states)
        pairs = zip(*hyperparams, strict=True)
        moved[optimizer.name] = any((a != b).any() for a, b in pairs)
        assert last.count.tolist() == [3, 3] and not last.skipped.any()
    assert moved == {
        "mean_alpha": True,
        "meta_adamw_frozen": False,
        "meta_adamw": True,
    }
    alpha = first["meta_adamw"].alpha
    assert alpha.shape == (2, 2), "seeds by groups"
    assert not np.allclose(alpha[0], alpha[1], atol=1e-3), "a draw for each seed"
    assert not np.allclose(alpha[:, 0], alpha[:, 1], atol=1e-4)
    np.testing.assert_array_equal(first["meta_adamw_frozen"].alpha, alpha)
    mean = np.repeat(alpha.mean(axis=1, keepdims=True), 2, axis=1)
    np.testing.assert_allclose(first["mean_alpha"].alpha, mean, rtol=1e-6)
    np.testing.assert_array_equal(first["mean_alpha"].beta, np.ones((2, 2)))


def test_the_groups_of_the_papers_models():
    """Six and sixteen: what the released code makes of its own models."""
    options = {"width": 8, "num_heads": 2, "hidden": 12, "dropout": 0.2}
    models = {
        6: lambda rngs: MiniGPT(9, context=4, depth=2, **options, rngs=rngs),
        16: lambda rngs: Translator(9, depth=4, **options, rngs=rngs),
    }
    tx = mada_optax.meta_adamw(1e-3)
    for number, build in models.items():
        params, _ = jax.eval_shape(functional(build)[0], jax.random.key(0))
        groups = tx.groups(params)
        assert len(groups) == number, sorted(groups)


@pytest.mark.parametrize("name", ["meta_adamw", "meta_adamw-mini"])
def test_the_suites(name):
    suite = get_suite(name)
    assert len(suite.entries) == 5
    for entry in suite.entries:
        assert entry.overrides == {"meta_fraction": 0.05}
        assert entry.early_stopping.patience == 2
        assert entry.steps % entry.eval_every == 0
        adamw, *others = resolve_all(entry.optimizers)
        assert adamw.name == suite.baseline
        assert [o.name for o in others] == [
            "mean_alpha",
            "meta_adamw_frozen",
            "meta_adamw",
        ]
        mean, frozen, learned = (dict(o.kwargs) for o in others)
        assert learned.pop("meta_every") == mean.pop("meta_every") >= 1
        assert frozen.pop("meta_every") == 0
        assert mean == frozen == learned
        assert adamw.kwargs.items() <= learned.items()
        tx = resolve(others[-1]).factory(**others[-1].kwargs)
        # The size of a head is 1, as in the paper.
        assert tx.rule.options.dim == tx.rule.options.attn_heads


def test_the_paper_is_judged_by_what_it_reports():
    assert get_suite("meta_adamw").measure == "best validation loss"
