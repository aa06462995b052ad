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
# # Meta-train a learned optimizer
#
# A learned optimizer is a small network that reads what an optimizer knows about a
# parameter (its gradient, momenta, second moments, its value) and says how to move it.
# Here we train such a network on a toy: a multi-layer perceptron of width 16 on
# scikit-learn's digits. Then we hand it to Optax, and use it on networks that are much
# wider than any it has seen.
#
# Everything runs on a laptop in a few minutes, and needs no download.

# %%
# %matplotlib inline
import jax
import matplotlib.pyplot as plt
import optax

import lopt
import tasks

# %% [markdown]
# ## The optimizee
#
# A task is a bundle of pure functions: how to start, what the loss is, where batches
# come from. In the maximal-update parametrization (μP) it also says how the step of
# each leaf has to shrink with the width; in this parametrization a good step at width
# 16 stays a good step at width 1024.


# %%
def digits(width, parametrization="mup"):
    return tasks.get(
        "digits-mlp", width=width, depth=3, parametrization=parametrization
    )


small = digits(width=16)
jax.tree.map(float, small.width_multipliers)

# %% [markdown]
# ## The learned optimizer
#
# `lopt.small_fc` maps 39 features of a parameter through two hidden layers to a
# direction and a magnitude. `init` makes its meta-parameters theta; `transform` makes
# an ordinary Optax transformation, whose state holds theta under `hyperparams`.

# %%
architecture = lopt.small_fc("mup")
theta = architecture.init(jax.random.key(0))
print(sum(leaf.size for leaf in jax.tree.leaves(theta)), "meta-parameters")

tx = architecture.transform(theta, width_multipliers=small.width_multipliers)
params, _ = small.init(jax.random.key(1))
state = tx.init(params)
list(state.hyperparams)

# %% [markdown]
# ## Meta-training
#
# We cannot backpropagate through a thousand steps of training: gradients explode, and
# truncating them is biased towards the short run. Persistent evolution strategies (PES)
# perturb theta instead, in antithetic pairs that share everything else, advance all
# training runs by a few steps, and remember what each run has been perturbed by since
# its start. The estimate is all but unbiased, and theta moves long before a run ends.

# %%
result = lopt.meta_train(
    architecture,
    theta,
    small,
    lopt.pes(num_particles=8, truncation_length=25, std=0.01),
    steps=200,
    schedule=lopt.LogUniform(50, 300, stagger=50),
    progress=False,
)
result.plot()

# %% [markdown]
# ## Using it
#
# The result is a gradient transformation like any other: it goes into chains, under
# `jit`, into checkpoints. It has no learning rate left to choose. We train networks 1
# to 32 times as wide as the one it knows, and, for comparison, with the theta that we
# started from, and with Adam in μP.


# %%
def train(task, transformation, steps=200):
    params, model_state = task.init(jax.random.key(2))

    @jax.jit
    def run(params, data):
        def step(carry, key):
            params, state = carry
            batch = task.sample(data, key)
            (loss, _), grads = jax.value_and_grad(task.loss, has_aux=True)(
                params, model_state, batch, key
            )
            updates, state = transformation.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss

        keys = jax.random.split(jax.random.key(3), steps)
        return jax.lax.scan(step, (params, transformation.init(params)), keys)[1]

    return run(params, task.data["train"])


widths = (16, 64, 256, 512)
fig, axes = plt.subplots(
    1, len(widths), figsize=(12, 3), sharey=True, layout="constrained"
)
for axis, width in zip(axes, widths, strict=True):
    wide = digits(width)
    multipliers = wide.width_multipliers
    candidates = {
        "meta-trained": architecture.transform(
            result.hyperparams, width_multipliers=multipliers
        ),
        "before": architecture.transform(theta, width_multipliers=multipliers),
        "Adam in μP": tasks.mup_adam(3e-2, multipliers),
    }
    for name, candidate in candidates.items():
        axis.plot(train(wide, candidate), label=name)
    axis.set(title=f"width {width}", xlabel="step", ylim=(0, 3))
axes[0].set_ylabel("training loss")
axes[-1].legend()
# %% [markdown]
# Adam's learning rate, 0.03, was chosen by hand; the learned optimizer had nothing to
# choose. But one short meta-training on one toy makes no optimizer for everything, and
# one seed is no evidence: `tasks.evaluate` is there for that.
#
# ## Anything with `hyperparams`
#
# Meta-training knows nothing of networks. It moves whatever stands in the `hyperparams`
# of an optimizer's state: here AdamW's learning rate, as its logarithm, from 1e-4.

# %%
tuned = lopt.meta_train(
    optax.inject_hyperparams(optax.adamw)(1e-3),
    {"log_learning_rate": jax.numpy.log(1e-4)},
    tasks.get("digits-mlp", width=16, depth=3),
    lopt.noise_reuse_es(num_particles=8, truncation_length=25, std=0.1),
    optax.adam(0.2),
    steps=40,
    schedule=lopt.Constant(100, stagger=100),
    to_hyperparams=lambda theta: {
        "learning_rate": jax.numpy.exp(theta["log_learning_rate"])
    },
    progress=False,
)
float(jax.numpy.exp(tuned.hyperparams["log_learning_rate"]))

# %% [markdown]
# ## Keeping it
#
# Meta-parameters are a few kilobytes. They are stored with their history and a hash,
# and loaded by path as well as by the name of weights that come with the package.

# %%
import pathlib
import tempfile

path = pathlib.Path(tempfile.mkdtemp()) / "mine.npz"
origin = {"architecture": architecture, "task": small.name}
lopt.save_pretrained(path, result.hyperparams, origin)
kept = lopt.mulo(pretrained=str(path), width_multipliers=small.width_multipliers)
