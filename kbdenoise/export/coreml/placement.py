"""Which operations a Neural Engine might take, guessed from the program alone.

Apple documents no rules: they change with the device, the system and the sizes of tensors. What
stands here was gathered from Apple's own ports and from other people's reports, and every verdict
names its rule, so that it can be doubted. It is no measurement: networks have been seen all of
whose operations looked eligible and none of which ran there. Core ML's own answer is in `plan`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from kbdenoise.export.coreml.program import Array, Operation, Program, Value

Verdict = Literal["likely", "verify", "unlikely"]
_WORST_FIRST: tuple[Verdict, ...] = ("unlikely", "verify", "likely")

NOTE = (
    "ANE-plausible is a static heuristic, not a measurement. Core ML's own plan: run "
    "`kbdenoise export --report` on macOS 14.4 or newer."
)
_HIGHEST_RANK, _LONGEST_AXIS = 4, 16_384
_PLAIN_KERNEL, _POOL_KERNEL, _POOL_STRIDE = 7, 13, 2  # px


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """All operations of one kind that share a verdict and its reason."""

    kind: str
    count: int
    rank: int
    """The highest of their results."""
    type: str
    verdict: Verdict
    why: str


def guess_placement(program: Program) -> tuple[Row, ...]:
    """A row for every kind and verdict, the least plausible first, then the most frequent."""
    grouped: dict[tuple[str, str, Verdict, str], list[Operation]] = {}
    for op in program.operations:
        verdict, why = judge(op, program)
        grouped.setdefault((op.kind, op.outputs[0].kind, verdict, why), []).append(op)
    rows = [
        Row(
            kind=kind,
            count=len(ops),
            rank=max(len(value.shape) for op in ops for value in op.outputs),
            type=type_,
            verdict=verdict,
            why=why,
        )
        for (kind, type_, verdict, why), ops in grouped.items()
    ]
    return tuple(sorted(rows, key=lambda r: (_WORST_FIRST.index(r.verdict), -r.count, r.kind)))


def shares(rows: tuple[Row, ...]) -> dict[Verdict, int]:
    """How many operations got each verdict, the best first."""
    return {v: sum(r.count for r in rows if r.verdict == v) for v in reversed(_WORST_FIRST)}


def judge(op: Operation, program: Program) -> tuple[Verdict, str]:
    """A verdict on one operation, and the rule behind it."""
    if reason := _never(op.outputs):
        return "unlikely", reason
    if op.kind in _RULES:
        return _RULES[op.kind](op, program)
    if op.kind in _LIKELY:
        return "likely", "fp16, rank 4, fixed shape: of the kinds that published ports rely on"
    if op.kind in _VERIFY:
        return "verify", _VERIFY[op.kind]
    return "unlikely", "of a kind that nobody is known to have seen there"


def _never(outputs: tuple[Value, ...]) -> str:
    for value in outputs:
        if value.kind != "fp16":
            return f"computes in {value.kind}; the Neural Engine knows half precision"
        if len(value.shape) > _HIGHEST_RANK:
            return f"rank {len(value.shape)}; tensors of rank 4 are laid out for it"
        if max(value.shape, default=0) > _LONGEST_AXIS:
            return f"an axis above {_LONGEST_AXIS:,} (folklore; Apple says nothing)"
    return ""


def _conv(op: Operation, program: Program) -> tuple[Verdict, str]:
    weight = _constant(op, "weight", program)
    _, width, *kernel = weight.shape
    groups = int(_constant(op, "groups", program))
    if any(step > 1 for step in _constant(op, "dilations", program).tolist()):
        return "unlikely", "dilated convolution"
    if groups > 1 and width > 1:
        return "verify", "grouped convolution, neither dense nor depthwise: little of it is used"
    if max(kernel) > _PLAIN_KERNEL:
        return "verify", f"kernel above {_PLAIN_KERNEL} px (one report of a fall-back)"
    return "likely", "dense or depthwise convolution with a small kernel"


def _pool(op: Operation, program: Program) -> tuple[Verdict, str]:
    kernel = max(_constant(op, "kernel_sizes", program).tolist())
    stride = max(_constant(op, "strides", program).tolist())
    if kernel > _POOL_KERNEL or stride > _POOL_STRIDE:
        return "unlikely", f"pooling over more than {_POOL_KERNEL} px, or in steps above 2"
    return "likely", "pooling with a small kernel and stride"


def _elementwise(op: Operation, program: Program) -> tuple[Verdict, str]:
    """Likely between equal shapes or with a constant; not known where a vector is stretched."""
    operands = (op.inputs["x"][0], op.inputs["y"][0])
    shapes = {program.shapes[name] for name in operands if name not in program.constants}
    if len(shapes) > 1:
        return "verify", "stretches one operand over the other (reported as a problem in 2020)"
    return "likely", "elementwise, between equal shapes or with a constant"


def _pad(op: Operation, program: Program) -> tuple[Verdict, str]:
    if str(_constant(op, "mode", program)) == "constant":
        return "likely", "padding with a constant"
    return "verify", "padding that repeats or mirrors"


def _constant(op: Operation, parameter: str, program: Program) -> Array:
    return program.constants[op.inputs[parameter][0]]


_LIKELY = frozenset(
    (
        *("abs", "batch_norm", "clip", "concat", "conv_transpose", "leaky_relu"),
        *("pixel_shuffle", "relu", "sigmoid", "split", "square", "tanh"),
    )
)
_VERIFY: Mapping[str, str] = {
    "cast": "changes the type, where a part for another unit may begin",
    "fill_like": "a constant made on the way",
    "gelu": "table of an activation function",
    "instance_norm": "normalises over all pixels of a tile",
    "layer_norm": "over the channels, as Apple's ports have it; compiler faults were reported",
    "matmul": "small products of matrices were seen to prefer the CPU",
    "pixel_unshuffle": "reorders memory",
    "real_div": "division is slow or absent on such engines",
    "reduce_mean": "a sum over many pixels; in half precision its accuracy is not known",
    "reshape": "reorders memory",
    "rsqrt": "parts of a norm were reported on the CPU",
    "slice_by_index": "copies a shifted part",
    "softmax": "over a small axis",
    "softplus": "table of an activation function",
    "transpose": "reorders memory",
}
_RULES: Mapping[str, Callable[[Operation, Program], tuple[Verdict, str]]] = {
    "add": _elementwise,
    "avg_pool": _pool,
    "conv": _conv,
    "max_pool": _pool,
    "maximum": _elementwise,
    "minimum": _elementwise,
    "mul": _elementwise,
    "pad": _pad,
    "sub": _elementwise,
}
