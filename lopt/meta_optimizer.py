"""The meta-optimizer of the μLO recipe, scaled to the length of a run."""

from __future__ import annotations

import dataclasses

import optax


@dataclasses.dataclass(frozen=True)
class WarmupCosineAdamW:
    """AdamW with a linear warm-up and a cosine decay (arXiv 2406.00153, appendix).

    Attributes:
      peak_learning_rate: reached after `warmup_fraction` of the meta-steps.
      final_learning_rate: reached after `decay_fraction` of them, and kept.
      warmup_fraction: 100 of 5000 steps in the paper.
      decay_fraction: 4900 of 5000 steps in the paper; includes the warm-up.
      b1: decay of the first moment.
      b2: decay of the second moment.
      weight_decay: decoupled weight decay.
      clip_norm: gradients of theta of a larger global norm are scaled down to it. Off
        by default: the clipping of the published code comes after AdamW, where it never
        acts.

    Example:
      >>> schedule = WarmupCosineAdamW().schedule(5000)
      >>> [f"{schedule(step):.1e}" for step in (50, 100, 4900, 5000)]
      ['1.5e-03', '3.0e-03', '1.0e-03', '1.0e-03']
    """

    peak_learning_rate: float = 3e-3
    final_learning_rate: float = 1e-3
    warmup_fraction: float = 0.02
    decay_fraction: float = 0.98
    b1: float = 0.9
    b2: float = 0.999
    weight_decay: float = 1e-4
    clip_norm: float | None = None

    def __post_init__(self):
        if not 0 <= self.warmup_fraction < self.decay_fraction <= 1:
            raise ValueError(
                "fractions of the run must satisfy 0 <= warmup_fraction < "
                f"decay_fraction <= 1, got {self.warmup_fraction} and "
                f"{self.decay_fraction}"
            )
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive, got {self.clip_norm}")

    def schedule(self, steps: int) -> optax.Schedule:
        """The learning rate over a run of `steps` meta-steps."""
        warmup = max(1, round(self.warmup_fraction * steps))
        return optax.warmup_cosine_decay_schedule(
            init_value=1e-7 * self.peak_learning_rate,
            peak_value=self.peak_learning_rate,
            warmup_steps=warmup,
            decay_steps=max(warmup + 1, round(self.decay_fraction * steps)),
            end_value=self.final_learning_rate,
        )

    def build(self, steps: int) -> optax.GradientTransformation:
        """The transformation; its learning rate can be read from its state."""
        adamw = optax.inject_hyperparams(
            optax.adamw,
            static_args=("b1", "b2", "eps", "eps_root", "weight_decay", "nesterov"),
        )(
            self.schedule(steps),
            b1=self.b1,
            b2=self.b2,
            weight_decay=self.weight_decay,
        )
        if self.clip_norm is None:
            return adamw
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), adamw)
