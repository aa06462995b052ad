"""The public function `meta_adamw`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax
from optax import ScalarOrSchedule

from mada_optax.meta_adamw.optimizer import MetaAdamW
from mada_optax.meta_adamw.options import choose
from mada_optax.meta_adamw.transform import Rule

Number = jax.typing.ArrayLike


def meta_adamw(
    learning_rate: ScalarOrSchedule,
    *,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    weight_decay: Number = 1e-2,
    mask: Any | Callable[[optax.Params], Any] | None = None,
    base_labels: Any | Callable[[optax.Params], Any] | None = None,
    base_groups: Mapping[str, Mapping[str, Any]] | None = None,
    preset: str = "default",
    groups: Any | None = None,
    depth_from_suffix: bool | None = None,
    features: str | None = None,
    feature_dim: int | str | None = None,
    use_v_norms: bool | None = None,
    include_time_step: bool | None = None,
    num_steps: Number | None = None,
    group_embed_dim: int | None = None,
    feature_transform: str | None = None,
    plus_features: str | None = None,
    use_feature_gating: bool | None = None,
    gate_position: str | None = None,
    train_gates: bool | None = None,
    gating_sparsity: Number | None = None,
    attn_layers: int | None = None,
    attn_heads: int | None = None,
    attn_hidden_dim: int | None = None,
    final_norm: bool | None = None,
    head_init: str | None = None,
    alpha_range: Number | None = None,
    beta_range: Number | None = None,
    seed: Number | None = None,
    decay_scaling: str | None = None,
    meta_every: int | None = None,
    meta_objective: str | None = None,
    objective_weights: Sequence[Number] | None = None,
    use_huw: bool | None = None,
    huw_priorities: Sequence[Number] | None = None,
    huw_task_types: Sequence[str] | None = None,
    huw_classification: str | None = None,
    huw_log_var_bounds: tuple[float, float] | None = None,
    lambda_mode: str | None = None,
    lambda_values: Sequence[Number] | None = None,
    virtual_step: str | None = None,
    meta_feature_grad: str | None = None,
    beta_gradient: bool | None = None,
    gap_at: str | None = None,
    paired_rng: bool | None = None,
    meta_weight_decay: Number | None = None,
    meta_reg: str | None = None,
    meta_learning_rate: ScalarOrSchedule | None = None,
    meta_optimizer: optax.GradientTransformation | None = None,
    meta_clip: Number | None = None,
) -> MetaAdamW:
    r"""AdamW whose step and decay are scaled, group by group, by a small Transformer.

    At every step each group of parameters becomes a row of statistics (norms of
    gradients, moments and parameters, their cosine, the time), a Transformer encoder
    attends over the rows, and its head gives two factors per group:

    .. math::

        x \leftarrow x - \eta\,\alpha_g \left( \frac{m / c_1}{\sqrt{v / c_2} + \epsilon}
          + \beta_g\,w\,x \right), \qquad
        \alpha_g, \beta_g \in (1 - r/2,\ 1 + r/2).

    With both at 1 that is AdamW. The encoder is random at first; it learns in the
    separate `meta_update`, every `meta_every` steps, through a virtual step. Without
    that it stays as it was drawn, which is the control to compare with, beside AdamW at
    the learning rate times the mean alpha: in the published runs most of the deviation
    from AdamW is decided by the draw.

    **Which preset?** "default" for training: the published method without what the
    released code breaks, all gradients live. "released" to reproduce the authors' code
    and numbers. An argument that is passed overrides either:

    ====================  ==================  ==================================
    argument              "default"           "released"
    ====================  ==================  ==================================
    decay_scaling         "lr"                "bias_corrected": decay also over
                                              c1, so 10 times as large at first
    beta_gradient         True                False: beta's head never learns
    train_gates           True                False: gates stay at sig(1) = .73
    gate_position         "after"             "before" standardization, which
                                              then undoes it
    plus_features         "documented"        "released": (norm_)basic_plus are
                                              those of "enhanced", cut
    huw_log_var_bounds    (-5, 5)             (-inf, inf): a weight can run away
                                              where a loss is negative
    paired_rng            True                False: other dropout masks on the
                                              two sides of a loss decrease
    depth_from_suffix     True                False: `Block_3` is in no layer
    groups                "fine_grained"      "original": one group in all
                                              without base_labels
    use_v_norms           True                False
    feature_dim           "auto"              8
    meta_objective        "combined"          "gradient"
    use_huw               True                False
    ====================  ==================  ==================================

    Args:
      learning_rate: a number or an Optax schedule. Whatever else scales the update
        later in a chain is unknown to the virtual step.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added outside of the square root.
      weight_decay: w, decoupled, multiplied by the learning rate.
      mask: a tree of booleans, a prefix of the parameters, or a function that makes
        one: what to decay.
      base_labels: as `optax.partition` takes them, for
      base_groups: `{label: {"learning_rate" | "weight_decay" | "b1" | "b2" | "eps":
        value}}`: what a label has of its own.
      preset: "default" or "released"; see above. Arguments that are `None` follow it.
      groups: the groups of the attention: "fine_grained" by type, third of the depth
        and kind (`mada_optax.meta_adamw.grouping.fine_grained`), "original" for those
        of `base_labels`, or a tree of labels, or a function from parameters to one.
      depth_from_suffix: whether `Block_3` tells a layer as `blocks.3` does.
      features: "basic" (means over the leaves of a group), "basic_plus" (and standard
        deviations), either with "norm_" before it (standardized across groups), or
        "enhanced" (with fractions of zeros, sizes, depths and a learned embedding of
        the group). Raw norms saturate the factors, standardized ones do not, but did
        worse in the published runs.
      plus_features: "documented" or "released".
      feature_dim: width of the encoder, rounded up to a multiple of `attn_heads`.
      use_v_norms: whether norms of second moments are features, not of "enhanced".
      include_time_step: whether the time is a feature.
      num_steps: the horizon T of the time feature t / T; without one tanh(t / 2000).
      group_embed_dim: size of the embeddings of "enhanced".
      feature_transform: "none", or "log1p" of the columns with norms.
      use_feature_gating: whether a learned sigmoid gate is on every column.
      gate_position: "after" or "before" standardization.
      train_gates: whether meta updates move the gates.
      gating_sparsity: weight of the sum of |gates| in the meta-objective.
      attn_layers: layers of the encoder (2).
      attn_heads: heads (4).
      attn_hidden_dim: width of its feed-forward layers (32).
      final_norm: whether a LayerNorm stands before the head; not as published.
      head_init: "xavier", or "zero" to start as AdamW exactly: then only the head
        learns in the first meta update.
      alpha_range: r of alpha (1); at most 2.
      beta_range: r of beta (1).
      seed: of the draw of the encoder (0).
      decay_scaling: "lr" as above, or "bias_corrected": w / c1 for w.
      meta_every: how many steps apart meta updates should be (100; 0 for never). The
        training loop makes them.
      meta_objective: "gradient" (small and aligned gradients after the virtual step),
        "loss_decrease" (of a validation batch by it), "gen_gap" or "combined".
        **"gen_gap" carries no gradient**: the gap is measured before the virtual step,
        so that the encoder sees its regularizer alone, and in "combined" only a
        log-variance moves. `gap_at="theta_prime"` changes that.
      objective_weights: weights of the three terms, if combined without `use_huw`.
      use_huw: whether learned uncertainties weight them
        (`mada_optax.uncertainty_weighting`), with
      huw_priorities: their priorities (1, 1, 1),
      huw_task_types: their types, all "regression", and
      huw_classification: "doubled" or "kendall".
      huw_log_var_bounds: the box of the log-variances.
      lambda_mode: "learned", or "fixed" at `lambda_values`: what weights the two parts
        of the gradient objective in a group. Learned, they can lower it by themselves:
        no gradient reaches alpha by that.
      lambda_values: these two (1, 1).
      virtual_step: "reuse" applies the moments again as they are; "advance", as in the
        paper, first advances them by the gradient on `batch1`.
      meta_feature_grad: "last_step" or "batch1": which gradient features are of there.
      beta_gradient: whether the gradient flows through beta.
      paired_rng: whether both losses of a decrease have the same key.
      gap_at: "theta", or "theta_prime": the gap after the virtual step.
      meta_weight_decay: weight of the regularizer of the encoder (1e-4).
      meta_reg: "norm" of every tensor, or its square ("squared").
      meta_learning_rate: of SGD (1e-4), the published
      meta_optimizer: or any other of Optax.
      meta_clip: global norm to which the meta-gradient is clipped, or `None`.

    Features, moments, g1 and losses before the virtual step are constants of the meta
    update. `update` itself is differentiable by all of `state.hyperparams`, so that
    `lopt.meta_train` can train them offline. The state holds 2 floats per parameter.

    Returns:
      A gradient transformation with state `MetaAdamWState`, the method `meta_update`
      and the attribute `meta_every`. Features see the gradient as it comes in here;
      the losses of `meta_update` know nothing of a clip before.

    Raises:
      ValueError: at construction, for a value, name or option that is not allowed;
        at `init` and `update`, for complex parameters or labels that do not fit; at
        `update`, for `params=None`.

    Examples:
      An update every step, and a meta update every K:

      >>> import jax, jax.numpy as jnp, mada_optax, optax
      >>> tx = mada_optax.meta_adamw(1e-2, meta_every=10)
      >>> def loss_fn(params, batch):
      ...     return jnp.mean((batch @ params["kernel"] - 1) ** 2)
      >>> @jax.jit
      ... def train_step(params, state, batch, batch1, batch2, val_batch):
      ...     grads = jax.grad(loss_fn)(params, batch)
      ...     updates, state = tx.update(grads, state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     state = jax.lax.cond(
      ...         state.count % tx.meta_every == 0,
      ...         lambda state: tx.meta_update(
      ...             loss_fn, params, state, grads, batch1, batch2, val_batch)[0],
      ...         lambda state: state, state)
      ...     return params, state
      >>> params = {"kernel": jnp.zeros((3, 2))}
      >>> state = tx.init(params)
      >>> for key in jax.random.split(jax.random.key(0), 20):
      ...     params, state = train_step(
      ...         params, state, *jax.random.normal(key, (4, 8, 3)))
      >>> state.alpha.shape, int(state.count)
      ((1,), 20)

    References:
      Zhao & Liu, `A Self-Attentive Meta-Optimizer with Group-Adaptive Learning Rates
      and Weight Decay <https://arxiv.org/abs/2605.04055>`_.
    """
    given = dict(locals())
    return MetaAdamW(Rule(choose(given.pop("preset"), given)))
