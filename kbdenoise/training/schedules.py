"""How the learning rate goes, as a function of how much of the run is done."""

import math


def warmup_cosine(progress: float, *, lr: float, min_lr: float, warmup: float) -> float:
    """Learning rate at `progress` in [0, 1]: a straight rise over `warmup`, then half a cosine.

    It ends at `min_lr` and stays there: past the end it never rises again.

    Source: Loshchilov and Hutter, 'SGDR', 2017 (arXiv:1608.03983), equation 5 without restarts.
    """
    if progress < warmup:
        return lr * max(progress / warmup, 1e-3)
    done = min(1.0, (progress - warmup) / (1.0 - warmup))
    return min_lr + 0.5 * (lr - min_lr) * (1.0 + math.cos(math.pi * done))
