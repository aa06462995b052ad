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
# # Use public weights
#
# Learned optimizers are published as files of weights: safetensors in PyTorch's layout,
# or flax msgpack in google's. `lopt.from_pretrained` makes an Optax transformation of
# any of them, offline, without TensorFlow, PyTorch or Haiku.
#
# No file of others comes with this package, so this notebook writes one in each
# published layout, byte for byte as large as the original, and pretends to have
# downloaded it. What is in them is not what others have learned, though: besides muLO,
# whose weights are our own, they hold weights that make each optimizer follow a known
# rule. Those are also the controls that a learned rule has to beat.

# %%
# %matplotlib inline
import pathlib

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import lopt
import tasks

STEPS = 300
downloads = pathlib.Path("downloads")

# %% [markdown]
# ## Files
#
# | file | published as | what the weights here do |
# |---|---|---|
# | `mulo/model.safetensors` | `btherien/mulo` | `mulo_m`, which we have meta-trained |
# | `celo2/model.safetensors` | `DiamondXL/celo2` | Muon's direction |
# | `celo2-base/theta.state` | `amoudgl/celo2-base` | Adam's direction |
# | `celo/theta.state` | `amoudgl/celo` | Adam's direction, a constant schedule |
# | `celo-adam/theta.state` | `amoudgl/celo-adam` | Adam, a schedule as it is drawn |
# | `velo`, two files | `Pauljanson002/VeLO_RNN`, `VeLO_MLP` | Adam's direction |
# | `velo-4000/theta.state` | `amoudgl/velo-4000` | the same |

# %%
velo, celo = lopt.velo(STEPS), lopt.celo(STEPS)
weights = {
    "celo2/model.safetensors": lopt.celo2.pass_through("muon"),
    "celo2-base/theta.state": lopt.celo2.pass_through("adam"),
    "celo/theta.state": celo.pass_through(7),
    "celo-adam/theta.state": lopt.LearnedSchedule(STEPS).init(jax.random.key(0)),
    "velo": velo.pass_through(7),
    "velo-4000/theta.state": velo.pass_through(7),
}
for name, theta in weights.items():
    path = downloads / name
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"architecture": lopt.celo2()} if name.startswith("celo2/") else None
    lopt.save_pretrained(path, theta, header)

ours = lopt.load_pretrained("mulo_m")
(downloads / "mulo").mkdir(exist_ok=True)
lopt.save_pretrained(downloads / "mulo/model.safetensors", *ours)

for path in sorted(downloads.rglob("*.s*")):
    print(f"{path.stat().st_size:9d} bytes  {path.relative_to(downloads)}")

# %% [markdown]
# ## What is in a file
#
# Files are recognised by their content. Names, shapes and values are checked, nothing
# is ever unpickled, and what a file does not say is told apart from what it does:
# muLO's published file lacks its learned decays, which are filled in from documented
# constants. (Ours says them in its header.) `python -m lopt inspect FILE` prints this:

# %%
from lopt.inspect_command import inspect

inspect([str(downloads / "mulo")])

# %% [markdown]
# A file of Celo2-base has the same names and shapes as one of Celo2. If it does not say
# which it is, you have to, rather than that we guess:

# %%
try:
    lopt.from_pretrained(downloads / "celo2-base", learning_rate=1e-2)
except ValueError as error:
    print(error)

# %% [markdown]
# A theta is the same nested dict in whichever layout it comes, here of VeLO:

# %%
thetas = [lopt.load_pretrained(downloads / x).theta for x in ("velo", "velo-4000")]
jax.tree.map(lambda x, y: bool((x == y).all()), *thetas)["rnn_params"]

# %% [markdown]
# ## Optimizers
#
# Celo2 has a learning rate, as its weights decide directions only: any schedule will
# do. VeLO, Celo and Celo-Adam have none, but must know the length of the run and see
# the loss. muLO needs neither; it wants a model in the maximal-update parametrization.

# %%
options = {"width": 64, "depth": 2, "batch_size": 64}
standard = tasks.get("digits-mlp", **options)
mup = tasks.get("digits-mlp", **options, parametrization="mup")
schedule = optax.cosine_decay_schedule(1e-2, STEPS, alpha=0.1)


def load(name, **options):
    return lopt.from_pretrained(downloads / name, **options)


optimizers = {
    "muLO": load("mulo", width_multipliers=mup.width_multipliers),
    "Celo2, as Muon": load("celo2", learning_rate=schedule),
    "Celo2-base, as Adam": load(
        "celo2-base", variant="celo2-base", learning_rate=schedule
    ),
    "Celo, as Adam": load("celo", num_steps=STEPS),
    "Celo-Adam, drawn": load("celo-adam", num_steps=STEPS),
    "VeLO, as Adam": load("velo-4000", num_steps=STEPS),
    "optax.adamw": optax.adamw(schedule),
}

# %% [markdown]
# Each is an ordinary `GradientTransformation`. Passing `value=loss` to one that does
# not look at it does no harm, so one loop trains with them all, 3 seeds at once.


# %%
def train(tx, task):
    tx = optax.with_extra_args_support(tx)

    def run(data, key):
        params, model_state = task.init(key)

        def step(carry, key):
            params, model_state, state = carry
            sample_key, loss_key = jax.random.split(key)
            batch = task.sample(data, sample_key)
            (loss, model_state), grads = jax.value_and_grad(task.loss, has_aux=True)(
                params, model_state, batch, loss_key
            )
            updates, state = tx.update(grads, state, params, value=loss)
            return (optax.apply_updates(params, updates), model_state, state), loss

        carry = params, model_state, tx.init(params)
        return jax.lax.scan(step, carry, jax.random.split(key, STEPS))[1]

    keys = jax.random.split(jax.random.key(0), 3)
    return jax.jit(jax.vmap(run, (None, 0)))(task.data["train"], keys)


losses = {
    name: train(tx, mup if name == "muLO" else standard)
    for name, tx in optimizers.items()
}

# %%
figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
styles = ["-", "--", "-.", ":", "-", "--", "-."]
for (name, curves), style in zip(losses.items(), styles, strict=True):
    smooth = jnp.median(curves, 0).reshape(-1, 10).mean(1)
    axes.plot(range(10, STEPS + 1, 10), smooth, style, label=name)
axes.set(xlabel="step", ylabel="training loss, median of 3 seeds", yscale="log")
axes.legend()
plt.show()

# %%
for name, curves in losses.items():
    print(f"{name:20} {float(jnp.median(curves[:, -50:].mean(1))):.4f}")

# %% [markdown]
# The training loss of the last 50 steps, three seeds, one network: enough to see that
# every file trains, and no more. AdamW's learning rate suits it here, and the rules
# that the others hold were not made for this task. Celo and VeLO scale their steps by
# the size of a tensor, a thousandth of it, and a constant schedule leaves them slow:
# making that schedule is what their weights have learned. With these the two are one
# rule, and their curves one line.
#
# Before you believe a learned rule, put it beside the known rule in the same harness,
# as here, and on your own task ([how](compare_on_your_own_task.ipynb)).
