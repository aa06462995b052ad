"""The gradient transformation with the methods that only MetaAdamW has."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mada_optax.meta_adamw import grouping, meta_step
from mada_optax.meta_adamw.attention import Factors
from mada_optax.meta_adamw.meta_step import Batches, LossFn, MetaAux
from mada_optax.meta_adamw.transform import MetaAdamWState, Rule


class MetaAdamW(optax.GradientTransformationExtraArgs):
    """`init` and `update` of MetaAdamW, and the meta update that goes with them.

    Attributes:
      rule: what `init` and `update` belong to.
      meta_every: how many steps apart its options say that meta updates should be.
    """

    rule: Rule
    meta_every: int

    def __new__(cls, rule: Rule):
        """The transformation of a rule."""
        tx = super().__new__(cls, rule.init, rule.update)
        tx.rule, tx.meta_every = rule, rule.options.meta_every
        return tx

    def init_with_key(self, key: jax.Array, params: Any) -> MetaAdamWState:
        """`init`, with an attention drawn from a key instead of the seed.

        For runs side by side, each with a draw of its own: can be mapped over keys.
        """
        seed = jax.random.bits(key, dtype=jnp.uint32)
        options = dataclasses.replace(self.rule.options, seed=seed)
        return type(self.rule)(options).init(params)

    def groups(self, params: Any) -> dict[str, list[str]]:
        """Names of leaves by group, the groups in the order of alpha and beta.

        Examples:
          >>> import jax.numpy as jnp, mada_optax
          >>> layer = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
          >>> mada_optax.meta_adamw(1e-3).groups({"head": layer})
          {'linear_middle_bias': ['head.bias'], 'linear_middle_weight': ['head.kernel']}
        """
        layout = self.rule.layout(params)
        out: dict[str, list[str]] = {name: [] for name in layout.names}
        for leaf, row in zip(grouping.leaf_names(params), layout.rows, strict=True):
            out[layout.names[row]].append(leaf)
        return out

    def virtual_step(
        self,
        hyperparams: Any,
        params: Any,
        state: Any,
        grads: Any,
        batch_grads: Any = None,
    ) -> tuple[Any, Factors]:
        """The parameters after a step that is not taken: for objectives of one's own.

        Differentiable by `hyperparams` alone; all else is a constant.

        Args:
          hyperparams: in place of those of `state`.
          params: after the last update.
          state: after the last update, as for `meta_update`.
          grads: those of the last update, for the features.
          batch_grads: by which the moments advance with `virtual_step="advance"`, by
            default `grads`.

        Returns:
          Parameters like `params`, and the factors of every group.
        """
        inner, _ = meta_step.locate(state)
        trained = meta_step.Trained(inner)
        moved, factors = meta_step.virtual_step(
            self.rule,
            hyperparams,
            trained,
            inner.count,
            trained.take("params", params),
            trained.take("grads", grads),
            trained.take("batch_grads", grads if batch_grads is None else batch_grads),
        )
        return trained.put(params, moved), factors

    def meta_update(
        self,
        loss_fn: LossFn,
        params: Any,
        state: Any,
        grads: Any,
        batch1: Any,
        batch2: Any,
        val_batch: Any = None,
        val_batch_gap: Any = None,
        *,
        key: jax.Array | None = None,
    ) -> tuple[Any, MetaAux]:
        """One step of the attention; parameters, moments and count stay as they are.

        Pure, and to be jitted with the training step, under `jax.lax.cond`. A step
        whose gradient is not finite is counted in `skipped` and not taken; nor is one
        before the first update.

        Args:
          loss_fn: `(params, batch) -> scalar`, or `(params, batch, key) -> scalar` if a
            key is given: the training loss, in training mode. What it does to batch
            statistics must stay inside of it. It is differentiated twice, which fused
            attention kernels may not allow.
          params: after the update, all that `loss_fn` needs; what is masked or frozen
            is a constant.
          state: after the update: of this transformation, or of a chain or a mask
            with it.
          grads: those of the last update, as this transformation saw them; `None` with
            `meta_feature_grad="batch1"`.
          batch1: a training batch.
          batch2: another.
          val_batch: for all objectives but "gradient"; best from data that are held
            out of training and not those that the result is reported on.
          val_batch_gap: another one for the generalization gap; `val_batch` by default,
            which saves a forward pass.
          key: for dropout.

        Returns:
          The new state, of the kind that was given, and `MetaAux`.

        Raises:
          ValueError: a batch or gradient that the options need is `None`, `state` does
            not hold one `MetaAdamWState`, or `params` or `grads` lack a leaf of it.
        """
        batches = Batches(batch1, batch2, val_batch, val_batch_gap)
        return meta_step.meta_update(
            self.rule, loss_fn, params, state, grads, batches, key
        )


def meta_update(
    tx: MetaAdamW,
    loss_fn: LossFn,
    params: Any,
    state: Any,
    batch1: Any,
    batch2: Any,
    val_batch: Any = None,
    val_batch_gap: Any = None,
    *,
    grads: Any = None,
    key: jax.Array | None = None,
) -> tuple[Any, MetaAux]:
    """One step of the attention of `tx`: its method `MetaAdamW.meta_update`.

    Args:
      tx: what `meta_adamw` returned, also where `state` is that of a chain with it.
      loss_fn: `(params, batch) -> scalar`, or `(params, batch, key) -> scalar`.
      params: after the update.
      state: after the update.
      batch1: a training batch.
      batch2: another.
      val_batch: a validation batch, for all objectives but "gradient".
      val_batch_gap: another one for the generalization gap; `val_batch` by default.
      grads: those of the last update; not needed with `meta_feature_grad="batch1"`.
      key: for dropout.

    Returns:
      The new state, of the kind that was given, and `MetaAux`.

    Raises:
      ValueError: what the options need is `None`, or `state` does not fit.

    Examples:
      >>> import jax, jax.numpy as jnp, mada_optax, optax
      >>> tx = mada_optax.meta_adamw(1e-2, meta_objective="gradient")
      >>> chain = optax.chain(optax.clip_by_global_norm(1.0), tx)
      >>> def loss_fn(params, batch):
      ...     return jnp.mean((batch @ params["kernel"] - 1) ** 2)
      >>> params, batch = {"kernel": jnp.zeros((3, 2))}, jnp.ones((4, 3))
      >>> grads = jax.grad(loss_fn)(params, batch)
      >>> updates, state = chain.update(grads, chain.init(params), params)
      >>> params = optax.apply_updates(params, updates)
      >>> state, aux = mada_optax.meta_update(
      ...     tx, loss_fn, params, state, batch, batch, grads=grads)
      >>> bool(aux.ok)
      True
    """
    return tx.meta_update(
        loss_fn,
        params,
        state,
        grads,
        batch1,
        batch2,
        val_batch,
        val_batch_gap,
        key=key,
    )
