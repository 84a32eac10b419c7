"""Networks without numbers: their shapes and names, on torch's meta device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWS = {Tensor.normal_, Tensor.uniform_}


@contextmanager
def on_meta() -> Iterator[None]:
    """Tensors made in this context have a shape and no numbers, and none are drawn for them.

    To draw them all the same, torch would first import its compiler, which takes seconds.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function in _DRAWS and args[0].is_meta:
            return args[0]
        return function(*args, **(kwargs or {}))
