"""The authors' released code, step by step, through the public functions."""

import contextlib

import jax
import numpy as np
import optax
import pytest
from golden import NAMES, Trace

from mada_optax.meta_adamw.attention import Factors
from mada_optax.meta_adamw.features import Leaf

# Sequence models take as long to compile as all others together.
MARKED = [
    pytest.param(name, marks=[pytest.mark.slow] if "_seq_" in name else [])
    for name in NAMES
]


@pytest.fixture(params=MARKED)
def trace(request):
    found = Trace(request.param)
    double = found.dtype == np.float64
    with jax.enable_x64(True) if double else contextlib.nullcontext():
        yield found


class Checks:
    """Comparisons with the recorded arrays, each to its tolerance."""

    def __init__(self, trace, order, free):
        self.trace, self.order = trace, order
        tight = trace.dtype == np.float64
        self.atol = dict.fromkeys(
            ("param", "factor", "features"), 1e-10 if tight else 5e-6
        )
        if free and not tight:
            self.atol = {"param": 1e-5, "factor": 3e-5, "features": 2e-4}

    def close(self, ours, recorded, kind):
        np.testing.assert_allclose(ours, recorded, rtol=0, atol=self.atol[kind])

    def trees(self, ours, recorded, kind):
        jax.tree.map(lambda x, y: self.close(x, y, kind), ours, recorded)

    def seen(self, ours, prefix, i=None):
        for name, value in ours.items():
            kind = "factor" if name in Factors._fields else "features"
            self.groups(value, f"{prefix}/{name}", i, kind)

    def groups(self, ours, key, i=None, kind="factor"):
        recorded = self.trace.arrays[key]
        recorded = recorded if i is None else recorded[i]
        self.close(ours, recorded[np.array(self.order)], kind)


class Program:
    """A step and a meta update with all that was recorded of them, compiled once."""

    def __init__(self, trace):
        self.tx = trace.transformation()
        self.loss = trace.loss
        self.step, self.meta = jax.jit(self._step), jax.jit(self._meta)

    def _seen(self, state, params, grads, count):
        """Features before and after gating and standardization, and all factors."""
        rule, groups = self.tx.rule, self.tx.rule.layout(params)
        trees = (grads, state.mu, state.nu, params)
        leaves = [Leaf(*row) for row in zip(*map(jax.tree.leaves, trees), strict=True)]
        raw, x = rule.rows(state.hyperparams, leaves, groups, count)
        factors = rule.factors(state.hyperparams, leaves, groups, count)
        return {"features_raw": raw, "encoder_in": x, **factors._asdict()}

    def _step(self, params, state, batch, forced):
        loss, grads = jax.value_and_grad(self.loss)(params, batch)
        used = grads if forced is None else forced
        seen = self._seen(state, params, used, state.count + 1)
        updates, state = self.tx.update(used, state, params)
        return loss, grads, seen, optax.apply_updates(params, updates), state

    def _meta(self, params, state, grads, batches):
        seen = self._seen(state, params, grads, state.count)
        ahead, _ = self.tx.virtual_step(state.hyperparams, params, state, grads)
        slope = jax.grad(self.loss)
        g1, g2 = slope(params, batches[0]), slope(ahead, batches[1])
        after, aux = self.tx.meta_update(self.loss, params, state, grads, *batches)
        return seen, {"theta_prime": ahead, "g1": g1, "g2": g2}, after, aux


def run(trace, program, free):
    """All steps and meta updates, each compared."""
    tx = program.tx
    checks = Checks(trace, trace.order(tx)[1], free)
    params, state = trace.start(tx)
    gates = 0.0
    for i in range(trace.steps):
        recorded = trace.tree("steps/grad", i)
        given = None if free else recorded
        batch = trace.batch("steps", i)
        loss, grads, seen, params, state = program.step(params, state, batch, given)
        checks.close(loss, trace.arrays["steps/loss"][i], "factor")
        checks.trees(grads, recorded, "factor")
        checks.seen(seen, "steps", i)
        checks.groups(state.alpha, "steps/alpha", i)
        checks.groups(state.beta, "steps/beta", i)
        after = trace.tree("steps/param", i)
        checks.trees(params, after, "param")
        if not free:
            grads, params = recorded, after
        if i + 1 not in trace.metas:
            continue

        prefix = f"meta{trace.metas.index(i + 1)}"
        names = ("batch1", "batch2", "val_loss", "val_gap")
        *batches, val, gap = (trace.batch(f"{prefix}/{name}") for name in names)
        batches += [val or gap, gap]
        seen, trees, after, aux = program.meta(params, state, grads, batches)
        checks.seen(seen, prefix)
        for name, tree in trees.items():
            checks.trees(tree, trace.tree(f"{prefix}/{name}"), "factor")
        for name, key in zip(aux.terms._fields, ("grad", "loss", "gap"), strict=True):
            if (term := getattr(aux.terms, name)) is not None:
                checks.close(term, trace.arrays[f"{prefix}/L_{key}"], "factor")
        checks.close(aux.total, trace.arrays[f"{prefix}/aux_loss"], "factor")
        slope = dict(aux.gradient)
        if "gates" in slope:  # which the released code never clears
            gates = slope["gates"] = gates + slope["gates"]
        wanted = trace.hyperparams(f"{prefix}/attn_grad", tx)
        checks.trees(slope, wanted, "factor")
        wanted = trace.hyperparams(f"{prefix}/attn_after", tx)
        checks.trees(after.hyperparams, wanted, "factor")
        for name in ("mu", "nu", "count"):
            old, new = getattr(state, name), getattr(after, name)
            jax.tree.map(np.testing.assert_array_equal, old, new)
        state = after
    if trace.tree("final/m"):
        checks.trees(state.mu, trace.tree("final/m"), "param")
        checks.trees(state.nu, trace.tree("final/v"), "param")


def test_reproduces_the_released_code(trace):
    """With recorded parameters and gradients, and left to itself."""
    program = Program(trace)
    run(trace, program, free=False)
    run(trace, program, free=True)
