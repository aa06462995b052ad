"""Errors name the argument, the value and what is allowed, at construction."""

import inspect

import jax.numpy as jnp
import optax
import pytest

from mada_optax import meta_adamw
from mada_optax.meta_adamw.options import PER_GROUP, RELEASED, Options

BAD = [
    ({"preset": "paper"}, "preset must be one of 'default', 'released', got 'paper'"),
    ({"learning_rate": float("nan")}, "learning_rate must be finite"),
    ({"b1": 1.0}, r"b1 must be in \[0, 1\)"),
    ({"weight_decay": -1.0}, "weight_decay must be"),
    ({"features": "basics"}, "features must be one of 'basic', 'norm_basic'"),
    ({"groups": "coarse"}, "groups must be one of 'fine_grained', 'original'"),
    ({"meta_objective": "loss"}, "meta_objective must be one of 'gradient'"),
    ({"decay_scaling": 1}, "decay_scaling must be one of 'lr', 'bias_corrected'"),
    ({"use_huw": "yes"}, "use_huw must be one of True, False"),
    ({"attn_heads": 0}, "attn_heads must be a positive integer, got 0"),
    ({"attn_layers": 1.5}, "attn_layers must be a positive integer"),
    ({"feature_dim": "wide"}, "feature_dim must be a positive integer, got 'wide'"),
    ({"feature_dim": 4}, "feature_dim=4 is too small for features='basic', .* 6 col"),
    ({"features": "basic_plus", "feature_dim": 8}, "has 11 columns"),
    ({"features": "enhanced", "feature_dim": 4}, "leaves no room beside group_embed"),
    ({"alpha_range": 2.5}, r"alpha_range must be in \[0, 2\], got 2.5"),
    ({"beta_range": -1.0}, "beta_range must be a finite number >= 0"),
    ({"num_steps": 0}, "num_steps must be a finite number > 0"),
    ({"meta_clip": 0.0}, "meta_clip must be"),
    ({"meta_every": -1}, "meta_every must be"),
    ({"huw_priorities": (1.0, 1.0)}, "huw_priorities must have 3 entries"),
    ({"huw_priorities": (1.0, 0.0, 1.0)}, "huw_priorities must be .* > 0"),
    ({"huw_task_types": ("regression", "b", "c")}, "huw_task_types must be one of"),
    ({"huw_log_var_bounds": (1.0, 2.0)}, r"huw_log_var_bounds must be .* around 0"),
    ({"base_groups": {"a": {}}}, "base_groups needs base_labels.*'a'"),
    (
        {"base_labels": "a", "base_groups": {"a": {"lr": 1.0}}},
        r"base_groups\['a'\] names 'lr'; allowed are 'learning_rate'",
    ),
    ({"base_labels": "a", "base_groups": {"a": {"b2": 2.0}}}, "b2 must be in"),
    (
        {"meta_learning_rate": 1e-3, "meta_optimizer": optax.sgd(1.0)},
        "pass one of the two",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda x: str(x)[:40])
def test_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        meta_adamw(**{"learning_rate": 1e-3, **arguments})


def test_what_a_learning_rate_is():
    with pytest.raises(TypeError, match="learning_rate must be a number"):
        meta_adamw("1e-3")


def test_at_update():
    params = {"a": jnp.ones(2)}
    tx = meta_adamw(1e-3)
    with pytest.raises(ValueError, match="params=None"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match="split_real_and_imaginary"):
        tx.init({"a": jnp.ones(2) * 1j})


def test_every_option_is_an_argument_and_documented():
    arguments = set(inspect.signature(meta_adamw).parameters)
    assert arguments == {*Options.__dataclass_fields__, "preset"}
    for name in arguments:
        assert f"\n  {name}: " in inspect.getdoc(meta_adamw)
    assert set(PER_GROUP) <= arguments


def test_the_presets_are_the_table_of_the_help():
    """Every row tells both values."""
    rows = {}
    for line in inspect.getdoc(meta_adamw).splitlines():
        parts = line.split(maxsplit=2)
        if len(parts) == 3 and parts[0] in RELEASED and not parts[0].endswith(":"):
            rows[parts[0]] = line
    assert set(rows) == set(RELEASED)
    default = meta_adamw(1e-3).rule.options
    released = meta_adamw(1e-3, preset="released").rule.options
    for name, line in rows.items():
        for options in (default, released):
            value = getattr(options, name)
            said = f'"{value}"' if isinstance(value, str) else str(value)
            assert said.replace(".0", "") in line
    given = meta_adamw(1e-3, preset="released", decay_scaling="lr").rule.options
    assert given.decay_scaling == "lr" and given.plus_features == "released"
