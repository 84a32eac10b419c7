"""Write kbdenoise/models/known_costs.py anew: what every named size costs.

    python -m benchmarks.costs

`kbdenoise models` shows these figures without building anything. A test holds them against the
models; run this after a model or a size has changed.
"""

from pathlib import Path

from kbdenoise.models import known_costs
from kbdenoise.models.build import describe_model
from kbdenoise.models.zoo import MODELS, named_size

_HEAD = '''"""What the named sizes cost, known without importing torch: 256x256 px, 3 channels or 1.

Written by `python -m benchmarks.costs`; a test holds every figure against the models themselves.
"""

from typing import NamedTuple


class KnownCosts(NamedTuple):
    """Learned numbers, and multiply-accumulates of one image of 256x256 px by kind."""

    parameters: int
    conv_macs: int
    kernel_basis_macs: int
    attention_macs: int


KNOWN_COSTS: dict[str, dict[str, KnownCosts]] = {
'''


def written() -> str:
    """The whole file."""
    lines = []
    for name, spec in MODELS.items():
        lines.append(f'    "{name}": {{')
        for size in spec.sizes:
            info = describe_model(
                name, channels=spec.published_channels(size), **named_size(name, size)
            )
            figures = (
                info.parameters,
                info.conv_macs,
                info.kernel_basis_macs,
                info.attention_macs,
            )
            text = ", ".join(f"{figure:_}" for figure in figures)
            lines.append(f'        "{size}": KnownCosts({text}),')
        lines.append("    },")
    return _HEAD + "\n".join(lines) + "\n}\n"


def main() -> None:
    """Write the file."""
    path = Path(known_costs.__file__)
    path.write_text(written(), encoding="utf-8")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
