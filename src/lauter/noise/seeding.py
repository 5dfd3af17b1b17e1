"""One seed, many independent generators: each step of a process has its own."""

import hashlib

import numpy as np

from lauter.errors import ConfigError


def step_generator(seed: int, step: str) -> np.random.Generator:
    """A generator of its own for a named step, so that adding or dropping one step leaves the others alone.

    Args:
        seed: the process's seed, 0 or above.
        step: the step's name.

    Returns:
        A generator that depends on both alone.

    Raises:
        ConfigError: the seed is negative.

    Example:
        >>> step_generator(0, "a").integers(100) == step_generator(0, "a").integers(100)
        np.True_
    """
    if seed < 0:
        raise ConfigError(f"seed must be 0 or above, not {seed}")
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(step.encode()).digest()[:8], "little")])
