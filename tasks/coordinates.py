"""The coordinate check: does a step move pre-activations equally far at every width?

Source: Yang et al., Tensor Programs V (arXiv 2203.03466), appendix D.1.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tasks import optimizers
from tasks.base import Batch, Task
from tasks.checks import check_counts, check_numbers
from tasks.optimizers import OptimizerLike
from tasks.training import initial_carry, training_step

_START_TOLERANCE = 0.2


@dataclasses.dataclass(frozen=True)
class CoordinateCheck:
    """How pre-activations start and change at several widths.

    Attributes:
      task: the name of the narrowest task.
      optimizer: the spec of the optimizer.
      widths: in increasing order.
      steps: numbers of training steps, in increasing order.
      layers: names of the pre-activations, the logits last.
      initial: how much pre-activations differ between examples before the first step:
        the standard deviation over examples and coordinates of their difference from
        the first example; float64[widths, layers].
      change: the standard deviation over examples and coordinates of what has been
        added to them since the start; float64[widths, steps, layers].
      tolerance: the largest slope of a layer that counts as flat.
      logits_tolerance: that of the logits, which are noisier.
    """

    task: str
    optimizer: str
    widths: tuple[int, ...]
    steps: tuple[int, ...]
    layers: tuple[str, ...]
    initial: np.ndarray
    change: np.ndarray
    tolerance: float
    logits_tolerance: float

    @property
    def slopes(self) -> np.ndarray:
        """Least-squares slopes of log size over log width: `initial`, then `change`.

        float64[1 + steps, layers]. NaN where the size is zero at every width, infinite
        where it is zero at some of them or not finite.
        """
        rows = [self.initial[:, None], self.change]
        return _slopes(self.widths, np.concatenate(rows, axis=1))

    @property
    def failures(self) -> list[str]:
        """What breaks the rules of `coordinate_check`, a phrase each."""
        moments = ["start", *(f"step {step}" for step in self.steps)]
        found = [
            f"{self.layers[j]} at {moments[i]} has slope {self.slopes[i, j]:.2f}"
            for i, j in np.argwhere(self._wrong())
        ]
        if np.isnan(self.slopes[-1, -1]):
            found.append(f"the logits have not moved after step {self.steps[-1]}")
        return found

    @property
    def passed(self) -> bool:
        """Whether there is no failure."""
        return not self.failures

    def table(self) -> str:
        """The slopes as a Markdown table, those that fail in bold, under a verdict."""
        widths = ", ".join(map(str, self.widths))
        rows = [
            ["layer", "start", *(f"step {step}" for step in self.steps)],
            ["---", *["---:"] * (1 + len(self.steps))],
        ]
        for layer, *column in zip(
            self.layers, self.slopes.T, self._wrong().T, strict=True
        ):
            rows.append([layer, *(_cell(*pair) for pair in zip(*column, strict=True))])
        return "\n".join(
            [
                f"{self._title}, slopes over the widths {widths}",
                "",
                *("| " + " | ".join(row) + " |" for row in rows),
            ]
        )

    def plot(self, path: str | pathlib.Path) -> None:
        """Writes a figure with a panel for the start and for each step."""
        from tasks import plots  # Loads matplotlib, which measuring does not need.

        panels = {"at the start, between examples": self.initial}
        for i, step in enumerate(self.steps):
            panels[f"change after step {step}"] = self.change[:, i]
        figure = plots.sizes_by_width(self._title, self.widths, self.layers, panels)
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)

    @property
    def _title(self) -> str:
        verdict = "PASS" if self.passed else "FAIL"
        return f"{verdict}: {self.optimizer} on {self.task}"

    def _wrong(self) -> np.ndarray:
        """Which of the slopes are outside of their limits."""
        slopes = self.slopes
        attention = [layer.endswith("attention_logits") for layer in self.layers]
        high = np.full(slopes.shape, self.tolerance)
        high[:, -1] = self.logits_tolerance
        low = -high
        low[:, attention] = -np.inf
        low[0], high[0] = -np.inf, _START_TOLERANCE
        high[0, attention] = _START_TOLERANCE - 0.5
        low[0, -1] = -_START_TOLERANCE
        return ~np.isnan(slopes) & ~((low <= slopes) & (slopes <= high))


def coordinate_check(
    make_task: Callable[[int], Task],
    optimizer: OptimizerLike,
    widths: Sequence[int] = (64, 128, 256, 512, 1024),
    steps: Sequence[int] = (1, 2, 5, 10, 20),
    *,
    seeds: int = 3,
    tolerance: float = 0.2,
    logits_tolerance: float = 0.5,
) -> CoordinateCheck:
    """Measures how far training steps move each pre-activation, at several widths.

    Under muP the change is of the same size at every width, so that log change over
    log width is a line of slope 0. All widths train on the same batches and are probed
    on one batch of training data. The rules are:

    * changes of a layer have a slope within `tolerance` of 0, those of the logits one
      within `logits_tolerance`, and the logits have moved at the end;
    * at the start no layer has a slope above 0.2, and the logits one within 0.2 of 0 or
      no dependence on the input, as a readout that is zero gives;
    * attention logits, whose names end in `attention_logits`, are sums of products that
      are independent at first and aligned later: at the start their slope is -0.5 (up
      to 0.2), and then they may shrink but not grow.

    Args:
      make_task: `width -> task`, see `Task.preactivations`.
      optimizer: a spec, a transformation, or a pair of a name and a factory, which is
        told the `width_multipliers` of each task.
      widths: at least two.
      steps: after how many training steps to measure.
      seeds: how many initialisations, whose squares are averaged.
      tolerance: see above.
      logits_tolerance: see above.

    Raises:
      ValueError: for anything wrong with the arguments, before anything is compiled.

    Example:
      >>> import tasks
      >>> check = coordinate_check(
      ...     lambda width: tasks.get("digits-mlp", width=width, parametrization="mup"),
      ...     "tasks:mup_adam(0.03)",
      ...     widths=(16, 32),
      ...     steps=(1, 2),
      ... )  # doctest: +SKIP
      >>> check.passed  # doctest: +SKIP
      True
    """
    widths = _increasing("widths", widths, at_least=2)
    steps = _increasing("steps", steps, at_least=1)
    check_counts(seeds=seeds)
    check_numbers(above=0, tolerance=tolerance, logits_tolerance=logits_tolerance)
    resolved = optimizers.resolve(optimizer)
    tasks = [make_task(width) for width in widths]
    for task in tasks:
        _preactivations(task)
        optimizers.check(resolved, task, steps[-1])
    layers = _common_layers(tasks)
    _check_growth(widths, tasks)
    initial, change = zip(
        *(_measure(t, resolved.build(t, steps[-1]), steps, seeds) for t in tasks),
        strict=True,
    )
    return CoordinateCheck(
        task=tasks[0].name,
        optimizer=resolved.spec,
        widths=widths,
        steps=steps,
        layers=layers,
        initial=np.stack([[of[layer] for layer in layers] for of in initial]),
        change=np.stack(
            [np.stack([of[layer] for layer in layers], axis=-1) for of in change]
        ),
        tolerance=tolerance,
        logits_tolerance=logits_tolerance,
    )


def _measure(
    task: Task,
    transformation: optax.GradientTransformationExtraArgs,
    steps: tuple[int, ...],
    seeds: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Start and change by layer, the latter after each of `steps`."""
    step, preactivations = training_step(task, transformation), _preactivations(task)

    def run(key, train, probe):
        carry = initial_carry(task, transformation)(key)
        first = preactivations(carry.params, carry.model_state, probe)

        def advance(carry, bounds):
            begin, end = bounds
            carry = jax.lax.fori_loop(
                begin, end, lambda t, carry: step(carry, train, t)[0], carry
            )
            now = preactivations(carry.params, carry.model_state, probe)
            return carry, jax.tree.map(_change, now, first)

        ends = jnp.array(steps)
        begins = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]])
        _, change = jax.lax.scan(advance, carry, (begins, ends))
        # Not from the mean, whose rounding would hide a readout that is exactly zero.
        return jax.tree.map(lambda z: _std(z - z[:1]), first), change

    @jax.jit
    def measure(keys, train, probe):
        return jax.lax.map(lambda key: run(key, train, probe), keys)

    keys = jnp.stack([jax.random.key(seed) for seed in range(seeds)])
    found = measure(keys, task.data["train"], _probe(task))
    return jax.tree.map(
        lambda std: np.sqrt(np.mean(np.asarray(std, np.float64) ** 2, axis=0)), found
    )


def _std(x: jax.Array) -> jax.Array:
    return jnp.std(x.astype(jnp.float32))


def _change(now: jax.Array, first: jax.Array) -> jax.Array:
    """The size of the change, zero where it is rounding alone."""
    change = _std(now - first)
    return jnp.where(change > 1e-5 * _std(first), change, 0.0)


def _preactivations(task: Task) -> Callable[..., dict[str, jax.Array]]:
    if task.preactivations is None:
        raise ValueError(
            f"task {task.name!r} does not tell its pre-activations; give it a function "
            "for them in Task.preactivations"
        )
    return task.preactivations


def _probe(task: Task) -> Batch:
    return task.sample(task.data["train"], jax.random.key(2**31 - 1))


def _check_growth(widths: Sequence[int], tasks: Sequence[Task]) -> None:
    """A model of one size is flat whatever its parametrization."""
    models = [jax.eval_shape(task.init, jax.random.key(0))[0] for task in tasks]
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(m)) for m in models]
    if sizes != sorted(set(sizes)):
        raise ValueError(
            "make_task must give models that grow with the width; at the widths "
            f"{tuple(widths)} they have {sizes} parameters"
        )


def _common_layers(tasks: Sequence[Task]) -> tuple[str, ...]:
    first, *others = map(_layers, tasks)
    for task, layers in zip(tasks[1:], others, strict=True):
        if layers != first:
            raise ValueError(
                f"make_task must give models with the same layers; {tasks[0].name} has "
                f"{first}, {task.name} {layers}"
            )
    return first


def _layers(task: Task) -> tuple[str, ...]:
    """Names in the order of the model, which a compiled function would sort."""
    names: list[str] = []

    def record(key):
        names.extend(_preactivations(task)(*task.init(key), _probe(task)))

    jax.eval_shape(record, jax.random.key(0))
    return tuple(names)


def _cell(slope: float, wrong: bool) -> str:
    if np.isnan(slope):
        return "-"
    return f"**{slope:.2f}**" if wrong else f"{slope:.2f}"


def _slopes(widths: Sequence[int], std: np.ndarray) -> np.ndarray:
    """Slopes of log std, of shape (widths, ...), over log width."""
    rows = std.reshape(len(widths), -1)
    fits = np.all((rows > 0) & np.isfinite(rows), axis=0)
    slopes = np.where(np.all(rows == 0, axis=0), np.nan, np.inf)
    if fits.any():
        slopes[fits] = np.polyfit(np.log(widths), np.log(rows[:, fits]), 1)[0]
    return slopes.reshape(std.shape[1:])


def _increasing(name: str, values: Sequence[int], at_least: int) -> tuple[int, ...]:
    values = tuple(values)
    for value in values:
        check_counts(**{name: value})
    if len(values) < at_least or list(values) != sorted(set(values)):
        raise ValueError(
            f"{name} must be at least {at_least} numbers in increasing order, got "
            f"{values}"
        )
    return values
