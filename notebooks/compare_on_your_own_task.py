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
# # Compare optimizers on your own task
#
# Which optimizer is best on the model that *you* train? Here the model and the data are
# not ours: a network in plain JAX, and scikit-learn's diabetes data. We describe them
# in five functions, tune each optimizer with the same effort, and compare what wins.
#
# Everything runs on a laptop in a minute or two, and needs no download.

# %%
# %matplotlib inline
import jax
import jax.numpy as jnp
import numpy as np
import sklearn.datasets

import tasks
from tasks.search import Space
from tasks.tuning import tune

# %% [markdown]
# ## The data
#
# A data set is what the functions below make of it: any tree of arrays for each split,
# "train" and "valid" at least. They are passed to compiled functions as arguments.

# %%
x, y = sklearn.datasets.load_diabetes(return_X_y=True)
order = np.random.default_rng(0).permutation(len(x))
rows = {"train": order[:300], "valid": order[300:]}


def standardized(array):
    train = array[rows["train"]]
    return np.float32((array - train.mean(0)) / train.std(0))


x, y = standardized(x), standardized(y)
data = {name: {"x": x[r], "y": y[r]} for name, r in rows.items()}
{name: split["x"].shape for name, split in data.items()}

# %% [markdown]
# ## The task
#
# `init` draws parameters, `loss` is what training sees, `sample` draws a batch,
# `evaluate` measures a whole split. What a model carries besides its parameters, such
# as batch statistics, is the second thing that `init` and `loss` return; here it is
# nothing. The keys are those of the seed, and the same for every optimizer.

# %%
WIDTH = 64


def init(key):
    key1, key2 = jax.random.split(key)
    params = {
        "hidden": jax.random.normal(key1, (x.shape[1], WIDTH)) / x.shape[1] ** 0.5,
        "bias": jnp.zeros(WIDTH),
        "output": jax.random.normal(key2, (WIDTH,)),
    }
    return params, ()


def squared_error(params, batch):
    hidden = jax.nn.relu(batch["x"] @ params["hidden"] + params["bias"][None])
    return jnp.mean((hidden @ params["output"] / WIDTH - batch["y"]) ** 2)


def loss(params, model_state, batch, key):
    return squared_error(params, batch), model_state


def sample(train, key):
    chosen = jax.random.randint(key, (32,), 0, len(train["y"]))
    return {"x": train["x"][chosen], "y": train["y"][chosen]}


def evaluate(params, model_state, split):
    return {"loss": squared_error(params, split)}


mine = tasks.Task(
    name="diabetes",
    init=init,
    loss=loss,
    sample=sample,
    evaluate=evaluate,
    data=data,
    width_multipliers={"hidden": 1.0, "bias": 1.0, "output": 1.0},
)

# %% [markdown]
# The last argument is for `lopt.mulo`, a learned optimizer that wants the model in the
# maximal-update parametrization: the output is divided by the width, and the steps of a
# matrix between two hidden layers by its fan-in. This model has no such matrix.
#
# ## Tuning fairly
#
# Comparing a tuned optimizer with one that is not shows the tuning. `tune` insists on
# the same number of trials, and on search spaces that are equally wide; it judges by
# seeds that the comparison below does not use. A winner at the edge of its space is
# flagged, since the best value may lie beyond.

# %%
spaces = [
    Space("optax:sgd({rate}, momentum=0.9)", {"rate": (0.01, 0.1, 1.0)}),
    Space("optax:adamw({rate})", {"rate": (0.001, 0.01, 0.1)}),
    Space("mada_optax:mada({rate})", {"rate": (0.001, 0.01, 0.1)}),
]
winners = tune(mine, spaces, steps=300, progress=False)["diabetes"]
for winner in winners:
    print(winner.spec, "(at the edge)" if winner.at_edge else "")
    for spec, reached in winner.losses.items():
        print(f"    {reached:8.4f}  {spec}")

# %% [markdown]
# All three choose the middle of their three rates, so none is flagged. Three trials are
# few; `LogUniform` axes with `trials=20`, say, search at random instead, at the same
# points for each optimizer.
#
# ## Comparing
#
# An optimizer is named by its import path, and yours can be too. `lopt:mulo` joins as
# it is, since it has nothing to tune.

# %%
results = tasks.evaluate(
    mine,
    [*(winner.spec for winner in winners), "lopt:mulo"],
    steps=300,
    seeds=5,
    progress=False,
)
results

# %%
results.plot()["diabetes.loss"]

# %% [markdown]
# ## What the numbers mean
#
# An estimate is the interquartile mean over the seeds; in brackets is its 95 %
# bootstrap interval. Two intervals in the table that overlap do not mean that two
# optimizers are equal: seeds are paired, and the difference to the baseline, seed by
# seed, is often known better than either loss. Verdicts are about that difference:
# "better" or "worse" where its interval excludes zero, "no clear difference" otherwise.

# %%
for summary in results.summaries()["diabetes"]:
    if summary.difference is not None:
        low, high = summary.difference.low, summary.difference.high
        print(f"{summary.optimizer:6} [{low:+.4f}, {high:+.4f}]  {summary.verdict}")

# %% [markdown]
# SGD with momentum, tuned with three trials, ends better than AdamW, though their
# intervals in the table overlap: that is what pairs are good for. The advantage is
# small, about 0.01 of a loss of 0.49. MADA cannot be told from AdamW, at some three
# times the cost of an update and more than three times the state.
#
# muLO ends worse than all others, and the figure says why: it has the lowest training
# loss by far, and overfits these 300 rows. Its best validation loss is no worse than
# that of the others, and the median seed is at the target in the fewest steps. The
# final loss is what verdicts are about; whoever stops early should look at the best one
# too, which flatters runs that go up and down, as it is picked on the same split.
#
# All of this is about one network on one small data set. That is what you have asked,
# if it is the one that you train; for what holds over tasks there are the suites.
