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
# # MetaAdamW: what do alpha and beta do?
#
# MetaAdamW is AdamW whose learning rate and weight decay are multiplied, for each group
# of parameters, by factors alpha and beta. A small Transformer computes them in every
# step from statistics of the groups, and learns while the model trains. Here we watch
# the factors, and then ask whether they help, with the controls that this question
# needs.
#
# Everything runs on a laptop in a few minutes, and needs no download.

# %%
# %matplotlib inline
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import mada_optax
import tasks

# %% [markdown]
# ## Groups
#
# The model is a vision transformer on scikit-learn's digits. By default leaves are
# grouped by the type of their layer, the third of the depth that it is in, and whether
# they are weights or biases; a tree of labels, or a function from the parameters to
# one, can say otherwise, as for `optax.partition`.

# %%
task = tasks.get("digits-vit", width=32, depth=1)
params, model_state = task.init(jax.random.key(0))
tx = mada_optax.meta_adamw(1e-3)
for name, leaves in tx.groups(params).items():
    print(f"{name}: {', '.join(leaves)}")

# %% [markdown]
# ## Training
#
# `update` is that of any Optax transformation. Every `meta_every` steps `meta_update`
# moves the Transformer: it repeats the step virtually with factors that depend on the
# Transformer's weights, measures what the step did on other batches, and follows the
# gradient. The whole loop is one `lax.scan`.

# %%
STEPS = 300


def train(tx):
    """Alpha and beta of every step, by group."""

    def loss_fn(params, batch):
        return task.loss(params, model_state, batch, jax.random.key(0))[0]

    def step(carry, key):
        params, state = carry
        batch, batch1, batch2, val_batch = (
            task.sample(data, key) for key in jax.random.split(key, 4)
        )
        grads = jax.grad(loss_fn)(params, batch)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        if tx.meta_every:
            state = jax.lax.cond(
                state.count % tx.meta_every == 0,
                lambda state: tx.meta_update(
                    loss_fn, params, state, grads, batch1, batch2, val_batch
                )[0],
                lambda state: state,
                state,
            )
        return (params, state), (state.alpha, state.beta)

    data = task.data["train"]
    keys = jax.random.split(jax.random.key(1), STEPS)
    run = jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), keys))
    return run(params)[1]


# %% [markdown]
# We look at two sets of features. "basic" are plain norms, as in the published runs;
# "norm_basic" standardizes them across the groups. Both start from the same draw of
# the Transformer, and each is run twice: as it was drawn, without a meta-update, and
# with one every ten steps. All four runs see the same batches.

# %%
options = {
    "basic, as drawn": {"meta_every": 0},
    "basic, meta-updated": {"meta_every": 10},
    "norm_basic, as drawn": {"features": "norm_basic", "meta_every": 0},
    "norm_basic, meta-updated": {"features": "norm_basic", "meta_every": 10},
}
factors = {
    name: train(mada_optax.meta_adamw(1e-3, num_steps=STEPS, **given))
    for name, given in options.items()
}

# %%
WINDOW = 15  # Averaged over, since factors follow the noise of the gradients.
names = list(tx.groups(params))
styles = plt.cycler(linestyle=["-", "--", ":"]) * plt.cycler(color=plt.cm.Dark2.colors)
fig, axes = plt.subplots(
    2, 4, figsize=(13, 5.5), sharex=True, sharey=True, layout="constrained"
)
for column, (title, both) in zip(axes.T, factors.items(), strict=True):
    for axis, label, values in zip(column, ("alpha", "beta"), both, strict=True):
        axis.set_prop_cycle(styles)
        for name, one in zip(names, values.T, strict=True):
            axis.plot(np.convolve(one, np.ones(WINDOW) / WINDOW, "valid"), label=name)
        axis.axhline(1, color="0.8", zorder=0)
        axis.set_ylabel(label if axis in axes[:, 0] else "")
    column[0].set_title(title, fontsize=10)
    column[1].set_xlabel("step")
handles, _ = axes[0, 0].get_legend_handles_labels()
fig.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8)
plt.show()

# %% [markdown]
# Grey is AdamW. Two things stand out. The factors are far from 1 from the first step
# on: a Transformer drawn at random is not a neutral start (`head_init="zero"` is). And
# the curves of the drawn and the meta-updated one differ little: most of their movement
# is the features changing under a Transformer that hardly does. With "norm_basic" the
# one feature that all groups share is the time, and so all of them drift together: a
# schedule of the learning rate that nobody has asked for.
#
# ## Does it help?
#
# So a lower loss than AdamW's would not yet mean that attention or meta-learning
# helped. Three controls tell:
#
# * AdamW, at the same learning rate and at twice that;
# * `mean_alpha`: one factor for all groups, the mean of MetaAdamW's alphas;
# * the Transformer as drawn, without meta-updates.
#
# `tasks.evaluate` pairs the seeds: the same initial parameters and batches for every
# optimizer, and the same draw of the Transformer for all that have one.

# %%
given = "num_steps=300, features='norm_basic'"
tasks.evaluate(
    task,
    [
        "optax:adamw(0.001, weight_decay=0.01)",
        ("adamw x 2", "optax:adamw(0.002, weight_decay=0.01)"),
        ("mean_alpha", f"mada_optax.meta_adamw.controls:mean_alpha(0.001, {given})"),
        ("as drawn", f"mada_optax:meta_adamw(0.001, {given}, meta_every=0)"),
        ("meta_adamw", f"mada_optax:meta_adamw(0.001, {given}, meta_every=10)"),
    ],
    steps=STEPS,
    seeds=5,
    progress=False,
)

# %% [markdown]
# AdamW with twice the learning rate is better than everything else. MetaAdamW, the
# attention as it was drawn and the one factor for all groups cannot be told from each
# other, nor from AdamW at the same rate: the intervals overlap, and those of the
# optimizers with a drawn Transformer are wider, since every seed draws another one. So
# on this task neither attention nor meta-learning buys anything that tuning the
# learning rate does not.
#
# `python -m tasks evaluate meta_adamw-mini` asks the same on small versions of the five
# tasks of the paper; `benchmarks/results/meta_adamw-mini` has what came out.
