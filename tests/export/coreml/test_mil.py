"""The interpreter: each of MIL's conventions that differs from torch's, types, shapes, refusals."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kbdenoise.errors import DataError
from kbdenoise.export.coreml.mil import evaluate
from tests.export.coreml.programs import program

CONV = {"strides": [1, 1], "dilations": [1, 1], "groups": 1, "pad_type": "custom"}


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def result(kind: str, x: Tensor, shape: tuple[int, ...], **constants: Any) -> Tensor:
    made = program(kind, gives=shape, constants=constants, x=tuple(x.shape))
    return evaluate(made, {"x": x})["out0"]


def test_a_convolution_is_padded_at_the_top_the_bottom_the_left_and_the_right() -> None:
    x, weight = drawn(1, 2, 5, 6), drawn(3, 2, 3, 3)

    found = result("conv", x, (1, 3, 6, 11), weight=weight.numpy(), pad=[1, 2, 3, 4], **CONV)

    torch.testing.assert_close(found, F.conv2d(F.pad(x, (3, 4, 1, 2)), weight))


def test_a_transposed_convolution_is_cropped() -> None:
    x, weight = drawn(1, 2, 3, 3), drawn(2, 3, 4, 4)
    settings = CONV | {"strides": [2, 2], "pad": [1, 1, 1, 1]}

    found = result("conv_transpose", x, (1, 3, 6, 6), weight=weight.numpy(), **settings)

    torch.testing.assert_close(found, F.conv_transpose2d(x, weight, stride=2, padding=1))


def test_padding_counts_axis_by_axis_from_the_first() -> None:
    x = drawn(1, 2, 3, 4)

    found = result("pad", x, (1, 2, 6, 11), pad=[1, 2, 3, 4], mode="constant", constant_val=0.0)

    torch.testing.assert_close(found, F.pad(x, (3, 4, 1, 2)))


def test_padding_repeats_the_outermost() -> None:
    x = drawn(1, 2, 3, 4)
    settings = {"mode": "replicate", "constant_val": 0.0}

    found = result("pad", x, (1, 2, 6, 4), pad=[0, 0, 0, 0, 1, 2, 0, 0], **settings)

    torch.testing.assert_close(found, F.pad(x, (0, 0, 1, 2), mode="replicate"))


def test_a_slice_reaches_to_the_end_where_its_mask_says_so() -> None:
    x = drawn(1, 4, 5, 6)
    masks = {"begin_mask": [True, False, False, True], "end_mask": [True, False, True, False]}

    found = result("slice_by_index", x, (1, 2, 4, 5), begin=[9, 1, 1, 9], end=[0, 3, 0, 5], **masks)

    torch.testing.assert_close(found, x[:, 1:3, 1:, :5])


def test_a_layer_norm_is_over_the_channels() -> None:
    x, gamma, beta = drawn(1, 4, 3, 3), drawn(4), drawn(4)

    found = result(
        "layer_norm",
        x,
        (1, 4, 3, 3),
        axes=[1],
        epsilon=1e-3,
        gamma=gamma.numpy(),
        beta=beta.numpy(),
    )

    expected = F.layer_norm(x.permute(0, 2, 3, 1), (4,), gamma, beta, 1e-3).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected)


def test_results_are_rounded_to_the_declared_type_and_tiny_ones_flushed_if_asked() -> None:
    made = program("mul", gives=(2,), constants={"y": 1.0}, type="fp16", x=(2,))
    x = torch.tensor([1 / 3, 1e-5])

    found, flushed = (evaluate(made, {"x": x}, flush=f)["out0"] for f in (False, True))

    assert found.tolist() == x.half().float().tolist()
    assert flushed.tolist() == [found[0].item(), 0.0]


def test_the_largest_magnitude_is_noted_by_kind() -> None:
    largest: dict[str, float] = {"mul": 2.0}
    made = program("mul", gives=(2,), constants={"y": -3.0}, x=(2,))

    evaluate(made, {"x": torch.tensor([1.0, 4.0])}, largest=largest)

    assert largest == {"mul": 12.0}


def test_an_unknown_operation_a_wrong_shape_and_a_missing_value_end_it() -> None:
    x = {"x": torch.ones(2)}
    made = program("mul", gives=(2,), constants={"y": 1.0}, x=(2,))
    (op,) = made.operations

    with pytest.raises(DataError, match="operation that kbdenoise cannot check: erf"):
        evaluate(replace(made, operations=(replace(op, kind="erf"),)), x)
    with pytest.raises(DataError, match=r"out0 of the package is \[2\], but \[3\] is declared"):
        evaluate(program("mul", gives=(3,), constants={"y": 1.0}, x=(2,)), x)
    with pytest.raises(DataError, match="x of the package is int32"):
        evaluate(program("relu", gives=(2,), type="int32", x=(2,)), x)
    with pytest.raises(DataError, match="takes 'y', which nothing has made"):
        evaluate(replace(made, constants={}), x)
    with pytest.raises(DataError, match=r"layer_norm \(out0\) of the package cannot be computed"):
        evaluate(program("layer_norm", gives=(2,), constants={"axes": [0]}, x=(2,)), x)
