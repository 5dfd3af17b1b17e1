"""How rivals weigh their terms: the check of the weights, and the warm-up over epochs."""

from lauter.errors import ConfigError


def check_weights(method: str, **weights: float) -> None:
    """Check that weights are finite and 0 or more.

    Raises:
        ConfigError: one is not; the message names the method, the weight and its value.
    """
    for name, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"{method}: {name} must be a finite weight of 0 or more, not {weight}")


def warm_up(epoch: int, length: int) -> float:
    """Share of its weight that a term has in an epoch, rising to 1 in ``length`` equal steps.

    Args:
        epoch: counted from 0.
        length: epochs of the rise; 0 for none.

    Returns:
        A factor in (0, 1].

    Example:
        >>> [warm_up(epoch, 4) for epoch in range(5)]
        [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    return min(1.0, (epoch + 1) / length) if length else 1.0
