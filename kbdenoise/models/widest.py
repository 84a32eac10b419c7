"""What to build instead of a model with too many parameters."""

from typing import Any

from kbdenoise.errors import SettingsError
from kbdenoise.models.known_costs import KNOWN_COSTS
from kbdenoise.models.zoo import MODELS, find_model, named_size

_STEP = 4  # widths tried are multiples of it: others make odd groups and slow convolutions


def parameters_of(name: str, /, *, channels: int, **hyperparameters: Any) -> int:
    """Learned numbers of a model that is built without memory. Raises SettingsError."""
    from kbdenoise.models.blank import on_meta
    from kbdenoise.models.build import build_model
    from kbdenoise.models.cost import count_parameters

    with on_meta():
        return count_parameters(build_model(name, channels=channels, **hyperparameters))


def widest_that_fits(
    name: str, /, *, channels: int, limit: int, **hyperparameters: Any
) -> tuple[int, int] | None:
    """The largest width below the given one with at most `limit` parameters, and their number.

    Only multiples of four that the model can be built with are tried, by bisection: a wider model
    has more parameters. None where no width fits, or the model has none to choose.
    """
    from kbdenoise.models.build import complete_hyperparameters

    given = complete_hyperparameters(name, **hyperparameters)
    if "width" not in given:
        return None
    best = None
    low, high = 1, (given["width"] - 1) // _STEP  # in steps, both included
    while low <= high:
        middle = (low + high) // 2
        found = _buildable(name, channels, given, range(middle, low - 1, -1))
        if found is None:
            low = middle + 1
        elif found[1] <= limit:
            best, low = found, middle + 1
        else:
            high = found[0] // _STEP - 1
    return best


def smaller_hint(name: str, /, *, channels: int, limit: int, **hyperparameters: Any) -> str:
    """A sentence on what fits under `limit` parameters: another width, or another model."""
    fitting = widest_that_fits(name, channels=channels, limit=limit, **hyperparameters)
    if fitting is not None:
        return f"--width {fitting[0]} has {fitting[1]:,} parameters"
    other, size, parameters = _smallest(channels)
    if parameters <= limit:
        return (
            f"no width of {name} fits; --model {other} --size {size} has {parameters:,} parameters"
        )
    return f"no named size is that small: {other} --size {size} has {parameters:,} parameters"


def _buildable(
    name: str, channels: int, given: dict[str, Any], steps: range
) -> tuple[int, int] | None:
    """The first width of `steps` that the model can be built with, and its parameters."""
    for step in steps:
        width = step * _STEP
        try:
            return width, parameters_of(name, channels=channels, **{**given, "width": width})
        except SettingsError:  # its groups or heads do not divide this width
            continue
    return None


def _smallest(channels: int) -> tuple[str, str, int]:
    """Model, size and parameters of the smallest restorer of the table."""
    sizes = [
        (costs.parameters, name, size)
        for name, known in KNOWN_COSTS.items()
        if name in MODELS and not find_model(name).sees_page
        for size, costs in known.items()
        if size in MODELS[name].sizes
    ]
    _, name, size = min(sizes)
    return name, size, parameters_of(name, channels=channels, **named_size(name, size))
