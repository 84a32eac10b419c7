"""What the table of models and a model's own file tell each other. Nothing here imports torch."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

if TYPE_CHECKING:
    from torch import Tensor, nn

Hyperparameters = Mapping[str, Any]
State = Mapping[str, "Tensor"]
"""Named tensors, as in a state_dict."""
Tiles = Literal["exact", "global-pooling"]
PAGE_SIDE = 64
"""Side, in px, of the thumbnail of a whole page that some models take beside a tile of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """Tensors that belong to a model: how it was built, and the tensors under our own names."""

    channels: int
    hyperparameters: dict[str, Any]
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A hyper-parameter: its type as annotated, and its default."""

    kind: Any
    default: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a model's file offers: how to build the network, and how to know its tensors.

    `multiple` and `receptive_field` are functions of the complete hyper-parameters. A receptive
    field is the farthest distance, in px along a row or a column, from which an input pixel reaches
    an output pixel; a page that is seen beside the tile does not count.
    `recognise` gives None for tensors of another model, and raises KeyError, IndexError or
    ValueError where they look like this model but contradict each other.
    """

    build: "Callable[..., nn.Module]"  # keyword arguments only: `channels` and the hyper-parameters
    recognise: Callable[[State], Recognised | None]
    receptive_field: Callable[[Hyperparameters], int | None]  # radius in px; None: unbounded
    multiple: Callable[[Hyperparameters], int] = lambda h: 1  # sides are multiples of this, in px
    given_options: Mapping[str, Option] | None = None  # where the signature of `build` says nothing

    @property
    def options(self) -> Mapping[str, Option]:
        """The hyper-parameters with their types and defaults, `channels` left out."""
        return _options_of(self.build) if self.given_options is None else self.given_options


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One line of the table: what is known of a model before torch is imported."""

    architecture: Callable[[], Architecture]  # imports torch, so only when called
    summary: str  # one line, for a table
    paper: str
    source: str  # the authors' repository
    licence: str  # of the authors' code and weights
    # "exact": tiles that overlap by the receptive field give the whole image's result;
    # "global-pooling": every tile has its own pooled statistics, so tiles differ a little.
    tiles: Tiles
    sees_page: bool = False  # takes a thumbnail of the whole page beside the tile
    channels_last: bool = False  # faster on a CPU with the channels of a pixel side by side
    fp16: bool = False  # safe when the whole model is cast to half precision
    fp16_autocast: bool = True  # safe under mixed precision in fp16
    bf16_autocast: bool = True
    sizes: Mapping[str, Hyperparameters] = field(default_factory=dict)  # the first is the default
    gray_sizes: tuple[str, ...] = ()  # those published for one channel; the others are for three

    def published_channels(self, size: str) -> int:
        """Channels of the pictures that a named size was published for."""
        return 1 if size in self.gray_sizes else 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is known of a model with its hyper-parameters chosen. Lengths in px."""

    name: str
    channels: int
    hyperparameters: Hyperparameters
    parameters: int
    multiple: int
    receptive_field: int | None
    tiles: Tiles
    sees_page: bool
    fp16: bool
    fp16_autocast: bool
    bf16_autocast: bool
    macs_side: int  # the image side that the counts below are for
    conv_macs: int
    kernel_basis_macs: int
    attention_macs: int
    summary: str
    paper: str

    @property
    def macs(self) -> int:
        """All multiply-accumulates of restoring one image of `macs_side` px."""
        return self.conv_macs + self.kernel_basis_macs + self.attention_macs


def _options_of(build: "Callable[..., nn.Module]") -> dict[str, Option]:
    parameters = inspect.signature(build).parameters
    constructor: Callable[..., object] = (
        vars(build)["__init__"] if inspect.isclass(build) else build
    )
    types = get_type_hints(constructor)
    return {
        name: Option(kind=types[name], default=parameter.default)
        for name, parameter in parameters.items()
        if name != "channels"
    }
