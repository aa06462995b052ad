# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Adapt while training
#
# MADA is one optimizer with six coefficients; Adam, AVGrad, Adan, Yogi and Lion are
# points of it. The coefficients move while the model trains, by the gradient of the
# loss with respect to them: how the last step would have changed, had they been
# different. Here we put it into an Optax chain, watch the coefficients, and then open
# the same door for an optimizer that is not ours.
#
# Everything runs on a laptop in a minute or two, and needs no download.

# %%
# %matplotlib inline
import jax
import matplotlib.pyplot as plt
import optax

import mada_optax
import tasks

# %% [markdown]
# ## In a chain
#
# `mada_optax.mada` is a gradient transformation like any other. The learning rate can
# be a schedule, and what comes before it in the chain changes what it sees as the
# gradient: here, clipping by the global norm. (`mada(..., clip_norm=1.0)` clips too,
# but leaves the gradient that moves the coefficients as it was.)

# %%
STEPS = 500
schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, 50, STEPS, end_value=3e-4)


def chained(**options):
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        mada_optax.mada(schedule, weight_decay=0.01, **options),
    )


# %% [markdown]
# The model is a multi-layer perceptron on scikit-learn's digits. The whole training is
# one `lax.scan`; whatever is to be watched is read from the state and returned with the
# loss. `optax.tree.get` finds `hyperparams` in the state however deep the chain is.

# %%
task = tasks.get("digits-mlp", width=64)
params, model_state = task.init(jax.random.key(0))


def train(tx):
    """The state at the end, and the loss and the coefficients of every step."""

    def step(carry, inputs):
        params, state = carry
        batch, key = inputs
        (loss, _), grads = jax.value_and_grad(task.loss, has_aux=True)(
            params, model_state, batch, key
        )
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (loss, optax.tree.get(state, "hyperparams", ()))

    @jax.jit
    def run(params, data):
        keys = jax.random.split(jax.random.key(1), STEPS)
        batches = jax.vmap(task.sample, (None, 0))(data["train"], keys)
        carry = params, tx.init(params)
        (params, state), watched = jax.lax.scan(step, carry, (batches, keys))
        return state, *watched, task.evaluate(params, model_state, data["valid"])

    return run(params, dict(task.data))


state, losses, coefficients, valid = train(chained())
optax.tree.get(state, "hyperparams")

# %% [markdown]
# ## Watching the coefficients
#
# How fast the coefficients move is `hyper_learning_rate`, one number or one by name.
# The default is careful: 0.0001 for the decays b1 and b2, 0.02 for the others. Next to
# it we run ten times that.

# %%
slow = {"b1": 1e-4, "b2": 1e-4, "b3": 2e-2, "c": 2e-2, "rho": 2e-2, "gamma": 2e-2}
fast = {name: 10 * rate for name, rate in slow.items()}
fast_state, fast_losses, fast_coefficients, fast_valid = train(
    chained(hyper_learning_rate=fast)
)

fig, axes = plt.subplots(2, 3, figsize=(10, 5), sharex=True, layout="constrained")
for axis, name in zip(axes.flat, slow, strict=True):
    axis.axhline(getattr(coefficients, name)[0], color="0.8", zorder=0)
    axis.plot(getattr(coefficients, name), "k-", label="default")
    axis.plot(getattr(fast_coefficients, name), "k:", label="ten times faster")
    axis.set_title(name)
    axis.ticklabel_format(useOffset=False)
for axis in axes[1]:
    axis.set_xlabel("step")
axes[0, 0].legend()
plt.show()

# %% [markdown]
# Grey is the start, where MADA is Adam with b2 = 0.95. The coefficients move early,
# when gradients are large, and little later on. b1 and b2 stay within 0.01 of the start
# and c within 0.001, even ten times faster. What leaves Adam are gamma, towards the
# sign of Lion, rho, towards the mean over time of AVGrad, and b3, towards the
# differences of gradients of Adan.
#
# Where they end depends on how fast they are, and they do not only go one way. So these
# are not optima that MADA has found, but how far it got in 500 steps.
#
# ## What moves them
#
# `diagnostics` takes the state of any chain with MADA in it, and gives the coefficients
# of the last step with their hypergradients: the derivative of the loss after a step
# with respect to the coefficients of that step. Descent moves each against its sign.
# The learning rate is not learned here, so that its hypergradient is 0. `skipped`
# counts the updates where one was not finite.

# %%
for name, value in mada_optax.diagnostics(state).items():
    print(f"{name:30}{value: .4g}")

# %% [markdown]
# ## MADA-FS: what it found, from the start
#
# `mada_final_state` makes the fixed optimizer at the coefficients that a run ended
# with; we train again, from the same start on the same batches.

# %%
fixed = optax.chain(
    optax.clip_by_global_norm(1.0),
    mada_optax.mada_final_state(fast_state, schedule, weight_decay=0.01),
)
_, fixed_losses, _, fixed_valid = train(fixed)
runs = {"default": valid, "ten times faster": fast_valid, "MADA-FS of it": fixed_valid}
for name, found in runs.items():
    print(f"{name:18} validation loss {found['loss']:.3f}, {found['accuracy']:.1%}")

# %% [markdown]
# The validation split has 359 images, so that half a percent is two of them, and this
# is one seed: nothing here tells the three apart. `tasks.evaluate` is there for that,
# see `compare_on_your_own_task`.
#
# ## The same door for any optimizer
#
# `hypergradient` makes the `hyperparams` of another transformation adaptive, such as
# those of `optax.inject_hyperparams`. AdamW starts with a learning rate that is some
# hundred times too small, and learns it, in the logarithm. What moves it is any Optax
# optimizer: here Adam, whose step hardly depends on the size of a gradient, so that
# the learning rate changes by some percent a step. For comparison, AdamW stays at the
# bad start, and at a good one.

# %%
adamw = optax.inject_hyperparams(optax.adamw)
learning = mada_optax.hypergradient(
    adamw(1e-5, eps_root=1e-16),
    optax.adam(0.05),
    learn=["learning_rate"],
    coordinates={"learning_rate": "log"},
    normalize=True,
)
compared = {
    "fixed at 0.00001": (adamw(1e-5), "k:"),
    "fixed at 0.003": (adamw(3e-3), "k--"),
    "learned from 0.00001": (learning, "k-"),
}
fig, axes = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
for name, (tx, line) in compared.items():
    _, losses, watched, valid = train(tx)
    axes[0].semilogy(watched["learning_rate"], line)
    axes[1].semilogy(losses, line, linewidth=1, label=name)
    print(f"{name:20} validation loss {valid['loss']:.3f}, {valid['accuracy']:.1%}")
axes[0].set(title="learning rate", xlabel="step")
axes[1].set(title="training loss", xlabel="step")
fig.legend(loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# The learning rate climbs by three decades in a hundred steps, overshoots, and comes
# back to about the rate that we had called a good one. What is lost are these hundred
# steps; then the loss is where that of the good start is. This is one seed and one task
# again, and a hypergradient is short-sighted: it asks what would have been best for the
# last step, which need not be best for the whole run.
