"""The suite that runs anywhere in minutes: two small tasks on embedded data.

Each learning rate won the sweep of `tasks.suites.sweep`: five rates per optimizer and
task, half a decade apart, none of the winners at the edge, two seeds not used here.

Adam with b2 = 0.95 is where HyperAdam and MADA start, and so the control of both: what
they gain beyond it, they gain by adapting.

The target of digits is a round number above what overfitting allows: what AdamW reaches
at three quarters of its run, the usual target, is noise around its lowest loss there.
"""

from __future__ import annotations

from tasks.suites.base import Entry, Suite

DEFAULT = Suite(
    name="default",
    description="A classifier and a language model on data that are always there.",
    entries=(
        Entry(
            task="digits-mlp",
            steps=1000,
            eval_every=25,
            target=0.1,
            optimizers=(
                "optax:sgd(learning_rate=0.1, momentum=0.9)",
                "optax:adamw(learning_rate=0.001)",
                "optax:lion(learning_rate=0.0001)",
                "mada_optax:adam(learning_rate=0.0003, b2=0.95)",
                "mada_optax:avgrad(learning_rate=0.001)",
                "mada_optax:hyper_adam(learning_rate=0.0003)",
                "mada_optax:mada(learning_rate=0.0003)",
            ),
        ),
        Entry(
            task="python-docs-lm",
            steps=300,
            eval_every=25,
            optimizers=(
                "optax:sgd(learning_rate=0.1, momentum=0.9)",
                "optax:adamw(learning_rate=0.003)",
                "optax:lion(learning_rate=0.001)",
                "mada_optax:adam(learning_rate=0.003, b2=0.95)",
                "mada_optax:avgrad(learning_rate=0.001)",
                "mada_optax:hyper_adam(learning_rate=0.003)",
                "mada_optax:mada(learning_rate=0.003)",
            ),
        ),
    ),
    baselines=("sgd", "adamw", "lion"),
)
