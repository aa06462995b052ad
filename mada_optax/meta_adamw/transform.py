"""The transformation behind MetaAdamW: its state and its update."""

import functools
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mada_optax.leaves import (
    increment,
    reject_complex,
    vary_like,
    wide_dtype,
    widest_dtype,
)
from mada_optax.meta_adamw import attention, features, grouping, step
from mada_optax.meta_adamw.attention import Factors
from mada_optax.meta_adamw.features import Leaf
from mada_optax.meta_adamw.grouping import Layout
from mada_optax.meta_adamw.options import Options


class MetaAdamWState(NamedTuple):
    """State of MetaAdamW; moments are like the parameters, float32 or wider.

    Attributes:
      count: updates done, int32 scalar.
      hyperparams: all that is meta-learned, a dict of "encoder" and "head" and, where
        the options have them, "group_embeddings" (a dict by label), "gates" (D,) and
        "log_vars" (3,).
      mu: first moments.
      nu: second moments.
      alpha: learning-rate factors of the last step, (G,), groups sorted by label.
      beta: weight-decay factors of the last step, (G,).
      meta_optimizer: state of the optimizer of `hyperparams`.
      skipped: meta updates that were not finite, int32 scalar.
    """

    count: jax.Array
    hyperparams: dict[str, Any]
    mu: Any
    nu: Any
    alpha: jax.Array
    beta: jax.Array
    meta_optimizer: Any
    skipped: jax.Array


class Rule:
    """`init` and `update` for checked options, and the parts of which they are made."""

    def __init__(self, options: Options):
        self.options = options
        optimizer = options.meta_optimizer or optax.sgd(options.meta_learning_rate)
        if options.meta_clip is not None:
            clip = optax.clip_by_global_norm(options.meta_clip)
            optimizer = optax.chain(clip, optimizer)
        self.meta_optimizer = optax.with_extra_args_support(optimizer)

    def layout(self, params: Any) -> Layout:
        """The attention groups of the parameters."""
        options, labels = self.options, self.options.groups
        from_suffix = options.depth_from_suffix
        if isinstance(labels, str) and labels == "original":
            labels = "all" if options.base_labels is None else options.base_labels
        elif isinstance(labels, str):
            labels = grouping.fine_grained(params, depth_from_suffix=from_suffix)
        return grouping.layout(params, labels, depth_from_suffix=from_suffix)

    def init(self, params: optax.Params) -> MetaAdamWState:
        """Moments of 0, and an attention drawn from the seed."""
        reject_complex(params)
        names, dtype = self.layout(params).names, widest_dtype(params)
        if self.options.num_standardized and len(names) == 2:
            warnings.warn(
                "Standardized across two groups every feature is +-0.71: choose more "
                "groups, or features without norm_.",
                stacklevel=2,
            )
        hyperparams = self._hyperparams(names, dtype)
        learned = {
            "count": jnp.zeros((), jnp.int32),
            "hyperparams": hyperparams,
            "alpha": jnp.ones(len(names), dtype),
            "beta": jnp.ones(len(names), dtype),
            "meta_optimizer": self.meta_optimizer.init(jax.tree.leaves(hyperparams)),
            "skipped": jnp.zeros((), jnp.int32),
        }

        def zeros():
            return jax.tree.map(
                lambda p: jnp.zeros_like(p, dtype=wide_dtype(p)), params
            )

        return MetaAdamWState(mu=zeros(), nu=zeros(), **vary_like(learned, params))

    def _hyperparams(self, names: Sequence[str], dtype: Any) -> dict[str, Any]:
        options = self.options
        key = jax.random.key(options.seed)
        out = attention.init(key, options, dtype)
        if options.has_embeddings:
            # `optax.tree.map_params` asks for a state without parameters: one leaf
            # then stands for the dict.
            size = options.group_embed_dim
            out["group_embeddings"] = {
                name: 0.1
                * jax.random.normal(
                    jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode()))),
                    (size,),
                    dtype,
                )
                for name in names
            } or jnp.zeros((0, size), dtype)
        if options.use_feature_gating:
            out["gates"] = jnp.ones(options.dim, dtype)
        if options.has_log_vars:
            out["log_vars"] = jnp.zeros(3, dtype)
        return out

    def rows(
        self, hyperparams: Any, leaves: Sequence[Leaf], groups: Layout, count: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Features of every group before and after gating and standardization."""
        options = self.options
        dtype = hyperparams["head"]["bias"].dtype
        raw = features.raw_rows(
            features.statistics(leaves, options, dtype),
            features.time_feature(count, options.num_steps, dtype),
            groups,
            options,
            hyperparams.get("group_embeddings"),
        )
        return raw, features.encoder_input(raw, hyperparams.get("gates"), options)

    def factors(
        self, hyperparams: Any, leaves: Sequence[Leaf], groups: Layout, count: jax.Array
    ) -> Factors:
        """What the attention makes of the features of step `count`."""
        _, x = self.rows(hyperparams, leaves, groups, count)
        return attention.factors(x, hyperparams, self.options)

    def numbers(
        self,
        params: Any,
        groups: Layout,
        factors: Factors,
        count: jax.Array,
        last_count: jax.Array,
    ) -> list[step.Numbers]:
        """What step `count` needs for every leaf, at the rate after `last_count`."""
        options = self.options
        labels = "" if options.base_labels is None else options.base_labels
        mask = options.mask(params) if callable(options.mask) else options.mask
        mask = True if mask is None else mask
        decays = [keep == "True" for keep in grouping.of_leaves(mask, params)]

        @functools.cache
        def of_groups(label, dtype):
            base = options.base(label)
            rate = base["learning_rate"]
            return step.numbers(
                base,
                count,
                rate(last_count) if callable(rate) else rate,
                factors.alpha,
                factors.beta,
                corrected_decay=options.decay_scaling == "bias_corrected",
                dtype=dtype,
            )

        return [
            step.of_group(of_groups(label, wide_dtype(leaf)), row, decays=keep)
            for leaf, row, label, keep in zip(
                jax.tree.leaves(params),
                groups.rows,
                grouping.of_leaves(labels, params),
                decays,
                strict=True,
            )
        ]

    def update(
        self, updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        """One step, whose factors come from the moments before it."""
        del extra_args
        if params is None:
            raise ValueError(
                "meta_adamw needs the parameters, whose norms are features: call "
                "update(grads, state, params), got params=None."
            )
        reject_complex(updates)
        given, treedef = jax.tree.flatten(updates)
        columns = map(treedef.flatten_up_to, (state.mu, state.nu, params))
        leaves = [
            Leaf(jnp.asarray(grad, mu.dtype), mu, nu, param)
            for grad, mu, nu, param in zip(given, *columns, strict=True)
        ]
        groups, count = self.layout(params), increment(state.count)
        factors = self.factors(state.hyperparams, leaves, groups, count)
        numbers = self.numbers(params, groups, factors, count, state.count)

        steps, moments = [], []
        for leaf, s in zip(leaves, numbers, strict=True):
            mu, nu = step.advance(leaf.mu, leaf.nu, leaf.grad, s)
            change = step.change(mu, nu, leaf.param, s)
            steps.append(change.astype(jnp.result_type(leaf.param)))
            moments.append((mu, nu))
        mu, nu = zip(*moments, strict=True) if moments else ((), ())
        return treedef.unflatten(steps), state._replace(
            count=count,
            mu=treedef.unflatten(mu),
            nu=treedef.unflatten(nu),
            alpha=factors.alpha,
            beta=factors.beta,
        )
