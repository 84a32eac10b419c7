"""KBNet-S as the deck has it, restoring a page and training, against the authors' formulation.

    python -m benchmarks.network [--quick]

In one run on this machine's CPU, with the same random weights: our network as `predict` and
`train` run it (compiled kernels, folded scales, channels side by side), our network by plain torch
operations, the same network with the authors' formulation of kernel-basis attention (see
benchmarks/operator.py), and spandrel's KBNet where spandrel is installed. Rounds follow each other
and the best of each counts; ours is checked against the others' output. Prints the figures and
writes them to benchmarks/results/.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the program sets it

import torch
from torch import Tensor, nn

from benchmarks import record
from benchmarks.operator import authors, per_tap
from kbdenoise.devices import choose_device
from kbdenoise.models.build import build_model, laid_out
from kbdenoise.models.kba import KernelBasisAttention
from kbdenoise.models.layers import fold_scales
from kbdenoise.models.zoo import named_size

SIDE = 512  # px of the page
PATCH, BATCH = 128, 4
ROUNDS = 5


def main() -> None:
    """Measure; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    rounds = 2 if parser.parse_args().quick else ROUNDS
    print(choose_device("cpu").text)
    ours = random_network()
    figures = {
        "threads": torch.get_num_threads(),
        "page": page(ours, rounds=rounds),
        "training_step": training_step(ours, rounds=rounds),
    }
    print(json.dumps(figures, indent=2))
    if rounds == ROUNDS:
        print(f"written: {record.write_result('network', figures)}")


def random_network() -> nn.Module:
    """The deck's KBNet-S with every parameter drawn, none at its default."""
    torch.manual_seed(0)
    model = build_model("kbnet-s", channels=3, **named_size("kbnet-s", "deck"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def page(ours: nn.Module, *, rounds: int) -> dict[str, Any]:
    """Seconds for one page of SIDE x SIDE px, and how far apart the outputs are."""
    image = torch.rand(1, 3, SIDE, SIDE)
    forms = {"ours": as_predicted(ours), **peers(ours)}
    with torch.inference_mode():
        outputs = {name: form.eval()(image) for name, form in forms.items()}
        times = timed({n: _restoring(form, image) for n, form in forms.items()}, rounds)
    difference = {
        f"ours_against_{name}_db": round(_psnr(outputs["ours"], outputs[name]), 1)
        for name in forms
        if name != "ours"
    }
    return times | difference


def training_step(ours: nn.Module, *, rounds: int) -> dict[str, Any]:
    """Seconds for forward and backward of a batch of patches."""
    batch = torch.rand(BATCH, 3, PATCH, PATCH)
    trained = laid_out(deepcopy(ours), name="kbnet-s", device="cpu")
    forms = {"ours": trained, **peers(ours)}
    return timed({n: _stepping(form.train(), batch) for n, form in forms.items()}, rounds)


def as_predicted(model: nn.Module) -> nn.Module:
    """The network as `kbdenoise predict` prepares it."""
    prepared = deepcopy(model)
    fold_scales(prepared)
    return laid_out(prepared, name="kbnet-s", device="cpu")


def peers(model: nn.Module) -> dict[str, nn.Module]:
    """The same weights behind other forms of the operator, and in another library's network."""
    found = {
        "plain_torch": _with_form(model, per_tap),
        "authors_form": _with_form(model, authors),
    }
    if find_spec("spandrel"):
        from spandrel.architectures.KBNet.__arch.kbnet_s import KBNet_s

        theirs = KBNet_s(
            img_channel=3,
            width=16,
            middle_blk_num=4,
            enc_blk_nums=[2, 3, 4],
            dec_blk_nums=[4, 3, 2],
        )
        theirs.load_state_dict(model.state_dict())
        found["spandrel"] = theirs
    return found


def _with_form(model: nn.Module, form: Callable[..., Tensor]) -> nn.Module:
    swapped = deepcopy(model)
    for module in swapped.modules():
        if isinstance(module, KernelBasisAttention):
            module.forward = _bound(form, module.groups)  # type: ignore[method-assign]
    return swapped


def _bound(form: Callable[..., Tensor], groups: int) -> Callable[..., Tensor]:
    return partial(form, groups=groups)


def _restoring(form: nn.Module, image: Tensor) -> Callable[[], object]:
    def restore() -> object:
        with torch.inference_mode():
            return form(image)

    return restore


def _stepping(form: nn.Module, batch: Tensor) -> Callable[[], object]:
    def step() -> object:
        form.zero_grad()
        return (form(batch) - batch).abs().mean().backward()

    return step


def timed(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    """Best seconds of each, and the others over ours."""
    spent: dict[str, list[float]] = {name: [] for name in work}
    for name in [*work] * rounds:
        started = time.perf_counter()
        work[name]()
        spent[name].append(time.perf_counter() - started)
    best = {name: min(values) for name, values in spent.items()}
    ratios = {f"{n}_over_ours": round(s / best["ours"], 2) for n, s in best.items() if n != "ours"}
    return {f"{name}_s": round(seconds, 3) for name, seconds in best.items()} | ratios


def _psnr(found: Tensor, expected: Tensor) -> float:
    error = (found - expected).double().square().mean().clamp(min=1e-30)
    return float(10 * torch.log10(expected.double().square().mean() / error))


if __name__ == "__main__":
    main()
