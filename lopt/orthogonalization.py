"""Orthogonalization of matrices by Newton-Schulz steps, as in Muon."""

import jax
import jax.numpy as jnp

# Of the odd polynomial a x + b x^3 + c x^5, steep at 0, that Muon uses.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(x: jax.Array, steps: int = 5) -> jax.Array:
    """Brings the singular values of matrices into about [0.7, 1.2].

    Args:
      x: at least 2 axes, of which the last two are those of a matrix.
      steps: Newton-Schulz steps. Singular values below about 1e-3 of the Frobenius norm
        stay below 0.7 after five.

    Returns:
      The shape and dtype of `x`; zeros stay zeros. Products have the precision of
      `jax.default_matmul_precision`, which in float32 need not be that of float32 on an
      accelerator.

    Raises:
      ValueError: `x` has fewer than 2 axes.

    Example:
      >>> import numpy as np
      >>> x = jax.random.normal(jax.random.key(0), (4, 9))
      >>> values = np.linalg.svd(orthogonalize(x), compute_uv=False)
      >>> bool(values.min() > 0.65 and values.max() < 1.25)
      True

    References:
      Jordan et al., `Muon <https://kellerjordan.github.io/posts/muon>`_, 2024.
    """
    if x.ndim < 2:
        raise ValueError(
            f"x has shape {x.shape}, but only matrices can be orthogonalized: give it "
            "at least 2 axes."
        )
    sharding = jax.typeof(x).sharding
    if any(axis is not None for axis in sharding.spec[-2:]):
        # A sharding that is part of the type leaves that of x @ x.mT open.
        whole = jax.P(*sharding.spec[:-2], None, None)
        return jax.sharding.reshard(
            orthogonalize(jax.sharding.reshard(x, whole), steps), sharding
        )
    if x.shape[-2] > x.shape[-1]:
        return orthogonalize(x.mT, steps).mT
    a, b, c = COEFFICIENTS
    # Added under the root so that its derivative at 0 is finite.
    norm = jnp.sqrt(jnp.sum(x**2, (-2, -1), keepdims=True) + 1e-30)

    def step(_, x):
        gram = x @ x.mT
        return a * x + (b * gram + c * (gram @ gram)) @ x

    return jax.lax.fori_loop(0, steps, step, x / (norm + 1e-8))
