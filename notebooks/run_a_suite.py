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
# # Run a suite and read the report
#
# A suite says which optimizers are run on which tasks, for how many steps, and what
# they are compared with. Here we run a small part of one, read its records back, and go
# through what the report says and what it does not.
#
# Everything runs on a laptop in a minute or two, and needs no download.

# %%
# %matplotlib inline
import dataclasses
import pathlib
import tempfile
import time

import tasks

# %% [markdown]
# ## A suite

# %%
for name in tasks.list_suites():
    print(f"{name:16}{tasks.get_suite(name).description}")

# %% [markdown]
# A suite is data: one can take a part of it and change it. From "default" we take the
# classifier of digits with four of its optimizers, and add the same network four times
# as wide. The learning rates were tuned for the first one, and for longer runs: what
# comes out is an example and not a recommendation.
#
# Adam with b2 = 0.95 is where MADA starts, and so its control. Before the run, we claim
# that MADA ends better.

# %%
default = tasks.get_suite("default")
(digits,) = default.only(["digits-mlp"]).entries
kept = [spec for spec in digits.optimizers if "lion" not in spec]
kept = tuple(spec for spec in kept if "avgrad" not in spec and "hyper" not in spec)
digits = dataclasses.replace(
    digits, optimizers=kept, steps=200, eval_every=10, target=None
)
wide = dataclasses.replace(digits, overrides={"width": 256})
suite = dataclasses.replace(
    default,
    name="digits",
    description="A part of the default suite.",
    entries=(digits, wide),
    claims=("mada < adam in final validation loss on digits-mlp",),
)
print("\n".join(kept))

# %% [markdown]
# ## Running it
#
# Every optimizer gets the same five seeds: the same initial parameters and batches.
# Records are written as soon as an optimizer is done on a task.

# %%
directory = pathlib.Path(tempfile.mkdtemp())
tasks.evaluate(suite, seeds=5, out_dir=directory, progress=False)
for path in sorted((directory / "records").glob("*.jsonl")):
    print(path.name)

# %% [markdown]
# ## Reading it
#
# The records are all that is needed: tables, figures and the page are computed from
# them, today or in a year. They hold the loss of every step, every evaluation, the
# coefficients of optimizers that have any, the configuration, versions and hardware.

# %%
results = tasks.Results.load(directory)
results

# %% [markdown]
# The first table is about all tasks. A score is 0 for a run that made no progress, and
# 1 for the best baseline of the task; the optimality gap is how far below 1 the scores
# are; P(improvement) is how likely a run is better than one of AdamW. Brackets are 95 %
# bootstrap intervals: over five seeds they cover the truth in some 90 of 100 cases.
#
# SGD and AdamW cannot be told apart by their scores. Adam and MADA are behind both:
# their learning rate, 0.0003, is too small for runs this short.

# %%
results.plot()["all.profiles"]

# %% [markdown]
# On the left is the share of the runs that score higher than a value. On the right is
# the share of the tasks on which an optimizer is at the target within a multiple of the
# steps that the fastest needs: SGD is the fastest on both, AdamW needs 1.75 times as
# many on one and is too slow on the other, and the other two never get there. The area
# below such a curve is the "time to target" of the table.

# %%
results.plot()["digits-mlp.loss"]

# %% [markdown]
# ## The claim
#
# A claim is tested once, by a one-sided permutation test over the paired seeds. With
# five pairs no p can be less than 1/32; with four it could never get below 0.05, and
# the claim would stay undecided whatever comes out.

# %%
for outcome in results.claims():
    print(f"{outcome.claim}: {outcome.verdict}, p = {outcome.p:.3g}")

# %% [markdown]
# The claim held: MADA was better in all five pairs. But the difference is 0.003, of
# losses of 0.56 in the table above, and AdamW is at 0.13. A test says that an effect is
# there, not that it matters: read the difference beside the verdict, and the rest of
# the table. This one compares two optimizers at a learning rate that fits neither.
#
# ## What it costs
#
# Costs are measured in the same process: the update alone, its ratio to Optax's AdamW,
# its share of a whole step, the memory of the state, and the time to compile.

# %%
for summary in results.summaries()["digits-mlp(width=256)"]:
    print(
        f"{summary.optimizer:6}"
        f"{summary.cost('update_ratio_to_adamw'):6.2f} x AdamW"
        f"{summary.cost('update_share'):8.0%} of the step"
        f"{summary.cost('state_bytes_per_parameter'):6.1f} B per parameter"
        f"{summary.cost('compile_seconds'):6.1f} s to compile"
    )

# %% [markdown]
# MADA keeps seven numbers for each parameter where AdamW keeps two, and its update
# takes several times as long; with a network as small as this, that is most of a step.
# It also takes longest to compile. Times are those of the machine that this has run on,
# which was busy with other things; the ratio to AdamW, timed in turns, suffers least.
#
# ## The page
#
# `to_html` writes one file with all of this, the figures inside: overview first, then a
# section for each task, with the commands that reproduce it.

# %%
page = results.to_html()
print(page.name, f"{page.stat().st_size / 1e3:.0f} kB")

# %% [markdown]
# ## Resuming, and sharing the work
#
# With `resume=True` what has been recorded is kept, and only what is missing is run. A
# directory with records of another configuration is refused.

# %%
began = time.perf_counter()
again = tasks.evaluate(suite, seeds=5, out_dir=directory, resume=True, progress=False)
print(f"{len(again.records)} records after {time.perf_counter() - began:.1f} s")

# %% [markdown]
# A whole suite is run from the command line, which writes records, figures and page:
#
# ```
# python -m tasks evaluate default --seeds 10 --out runs/default --resume
# ```
#
# If it is interrupted, the same command goes on. If it is started in several terminals
# of a machine, they share the work: each claims an
# optimizer on a task at a time, and what a process had begun when it was killed is done
# by another. All of them return when everything is done.
#
# That is for many small runs. A model that is large itself can use several devices of
# one process: `--devices 4` spreads each batch over four of them, and `--shard-params`
# the parameters and the optimizer's state too; seeds then come one after another.
#
# ```
# python -m tasks evaluate mada --devices 4 --shard-params --out runs/mada --resume
# ```
#
# `python -m tasks report runs/default` makes tables, figures and page anew, and
# `python -m tasks list` shows what there is to run.
