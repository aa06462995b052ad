"""Every public optimizer, once. All tests of this folder run for each entry.

To put an optimizer under contract, add a line to `OPTIMIZERS`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
import pytest

import lopt
import mada_optax


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """A factory and arguments with which it minimizes small problems.

    Attributes:
      name: of the test.
      factory: takes keyword arguments, gives a gradient transformation.
      arguments: for it; a learning rate is called `learning_rate`.
      smooth: arguments with which updates depend smoothly, without stopped gradients,
        on the hyper-parameters; `None` if they cannot.
      slow: whether its contracts run in `.ci/nightly` only: they take minutes, or its
        code is that of another entry.
    """

    name: str
    factory: Callable[..., optax.GradientTransformation]
    arguments: Mapping[str, Any]
    smooth: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)
    slow: bool = False

    def __call__(self, **changed):
        arguments = {**self.arguments, **changed}
        return optax.with_extra_args_support(self.factory(**arguments))


def chained_mada(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """All branches, in the order of one pass, with clipping inside."""
    direction = mada_optax.scale_by_mada(
        b3=0.1,
        c=0.9,
        rho=0.7,
        gamma=0.999,
        update_order="x_first",
        hyper_momentum=0.5,
        hyper_learning_rate=1e-6,
        clip_norm=10.0,
    )
    return optax.chain(direction, optax.scale_by_learning_rate(learning_rate))


def final_mada(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """At the end of a GPT-2 run."""
    names = ("b1", "b2", "b3", "c", "rho", "gamma")
    values = (0.9288, 0.9491, 0.0809, 0.9877, 0.1210, 0.999)
    return mada_optax.mada_final_state(
        dict(zip(names, values, strict=True)), learning_rate
    )


def adaptive_adamw(
    learning_rate: float, dtype: str = "float32"
) -> optax.GradientTransformationExtraArgs:
    adamw = optax.inject_hyperparams(optax.adamw, hyperparam_dtype=dtype)
    return mada_optax.hypergradient(
        adamw(learning_rate, eps_root=1e-16, weight_decay=0.0),
        optax.sgd(1e-5),
        learn=["learning_rate", "b1"],
    )


def small_fc(
    learning_rate: optax.ScalarOrSchedule, parametrization: str = "mup", theta: str = ""
) -> optax.GradientTransformationExtraArgs:
    """With a random theta it goes anywhere; with a passed momentum it descends."""
    architecture = lopt.small_fc(parametrization, hidden_size=4, step_multiplier=1.0)
    random = architecture.init(jax.random.key(0))
    chosen = random if theta == "random" else architecture.pass_through(6)
    return optax.chain(
        architecture.transform(chosen),
        optax.scale_by_learning_rate(learning_rate, flip_sign=False),
    )


def celo2(
    learning_rate: optax.ScalarOrSchedule, orthogonalize: bool = True
) -> optax.GradientTransformation:
    """Muon, or Adam, with biases that cancel, so that the size of theta matters."""
    architecture = lopt.celo2(
        learning_rate, orthogonalize=orthogonalize, reshape="merge"
    )
    theta = architecture.pass_through("muon" if orthogonalize else "adam")
    stack = theta["ff_mod_stack"]
    stack |= {"b0": stack["b0"] + 0.5, "b1": stack["b1"] - 0.5}
    return architecture.transform(theta)


def with_loss(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Where a test gives no loss, it is that of a bowl with this gradient."""

    def update(updates, state, params=None, **extra_args):
        bowl = jax.numpy.asarray(optax.tree.norm(updates, squared=True))
        return tx.update(updates, state, params, **{"value": bowl, **extra_args})

    return optax.GradientTransformationExtraArgs(tx.init, update)


def velo(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Adam, whose LSTM moves its length with the loss."""
    architecture = lopt.velo(
        100, parametrization="mup", hidden_size=5, bank_size=3, step_multiplier=1.0
    )
    theta = architecture.pass_through(7)
    drawn = architecture.init(jax.random.key(0))["rnn_params"]
    theta["rnn_params"] |= {name: drawn[name] for name in ("linear_2", "rnn")}
    theta["rnn_params"]["step_size"]["w"] += 0.1
    return with_loss(
        optax.chain(
            architecture.transform(theta),
            optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        )
    )


def celo(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Adam in steps of a relative size, with a random schedule."""
    architecture = lopt.celo(100, hidden_size=5, step_multiplier=1.0)
    theta = architecture.init(jax.random.key(0))
    theta |= {"ff_mod_stack": architecture.pass_through(7)["ff_mod_stack"]}
    return with_loss(
        optax.chain(
            architecture.transform(theta),
            optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        )
    )


def scheduled_adam(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformation:
    """Celo-Adam, with a schedule that hardly sees how losses are rounded."""
    theta = lopt.LearnedSchedule(100, hidden_size=5).init(jax.random.key(0))
    theta["rnn_params"]["linear_2"]["w"] *= 0.1
    return with_loss(lopt.celo_adam(theta, 100, learning_rate, hidden_size=5))


def frozen_meta_adamw(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """Its attention as drawn."""
    return mada_optax.meta_adamw(learning_rate, weight_decay=0.0)


def meta_updated_adamw(
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    """With gates and embeddings, and a meta update on a bowl after every update."""
    tx = mada_optax.meta_adamw(
        learning_rate,
        weight_decay=0.0,
        features="enhanced",
        use_feature_gating=True,
        attn_layers=1,
    )

    def bowl(params, center):
        leaves = [x.astype("float32") for x in jax.tree.leaves(params)]
        return sum((((x - center) ** 2).sum() for x in leaves), 0.0 * center)

    def update(updates, state, params=None, **extra_args):
        changes, state = tx.update(updates, state, params, **extra_args)
        after = optax.apply_updates(params, changes)
        centers = map(jax.numpy.float32, (0.1, -0.1, 0.0))
        state, _ = tx.meta_update(bowl, after, state, updates, *centers)
        return changes, state

    return optax.GradientTransformationExtraArgs(tx.init, update)


OPTIMIZERS = (
    Optimizer("adam", mada_optax.adam, {"learning_rate": 1e-2}),
    Optimizer("amsgrad", mada_optax.amsgrad, {"learning_rate": 1e-2}, slow=True),
    Optimizer("avgrad", mada_optax.avgrad, {"learning_rate": 1e-2}, slow=True),
    Optimizer("adan", mada_optax.adan, {"learning_rate": 1e-2}, slow=True),
    Optimizer("yogi", mada_optax.yogi, {"learning_rate": 1e-2}, slow=True),
    Optimizer("lion", mada_optax.lion, {"learning_rate": 1e-3}, smooth=None),
    Optimizer("mada", mada_optax.mada, {"learning_rate": 1e-2}),
    Optimizer("mada_final_state", final_mada, {"learning_rate": 1e-2}, slow=True),
    Optimizer("scale_by_mada", chained_mada, {"learning_rate": 1e-2}, slow=True),
    Optimizer("hyper_adam", mada_optax.hyper_adam, {"learning_rate": 1e-2}, slow=True),
    Optimizer(
        "hypergradient",
        adaptive_adamw,
        {"learning_rate": 1e-2},
        smooth={"dtype": "float64"},
    ),
    Optimizer("small_fc", small_fc, {"learning_rate": 1e-2}),
    Optimizer("celo2", celo2, {"learning_rate": 1e-2}),
    Optimizer(
        "celo2-base",
        celo2,
        {"learning_rate": 2e-3, "orthogonalize": False},
        smooth={"learning_rate": 2e-2},
        slow=True,
    ),
    Optimizer("velo", velo, {"learning_rate": 3e-3}, slow=True),
    Optimizer("celo", celo, {"learning_rate": 3e-3}, slow=True),
    Optimizer("learned schedule", scheduled_adam, {"learning_rate": 1e-2}, slow=True),
    Optimizer("meta_adamw", frozen_meta_adamw, {"learning_rate": 1e-2}),
    Optimizer(
        "meta_adamw meta-updated",
        meta_updated_adamw,
        {"learning_rate": 1e-2},
        smooth=None,
        slow=True,
    ),
)
PARAMS = [
    pytest.param(o, id=o.name, marks=[pytest.mark.slow] if o.slow else [])
    for o in OPTIMIZERS
]
