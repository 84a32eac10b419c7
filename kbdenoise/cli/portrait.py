"""A model's portrait as text: where it comes from, its numbers, its work, its memory, its parts."""

from typing import TYPE_CHECKING

from kbdenoise.cli.words import Cell, pairs, size, table

if TYPE_CHECKING:
    from kbdenoise.models.portrait import Portrait
    from kbdenoise.models.spec import ModelInfo, ModelSpec


def portrait_text(
    portrait: "Portrait",
    spec: "ModelSpec",
    *,
    size_name: str,
    sizes: dict[str, dict[str, int]],
    width: int,
) -> str:
    """All of it. `sizes` are costs at 256 px by name; `width` is the screen's, 0 for none."""
    name = portrait.info.name
    origin = pairs({"paper": spec.paper, "source": spec.source, "licence": spec.licence})
    blocks = [f"  {name}: {spec.summary}\n{origin}"]
    if sizes:
        rows: list[dict[str, Cell]] = [
            {
                "size": s,
                "parameters": costs["parameters"],
                "GMACs at 256 px": _all_macs(costs) / 1e9,
                "without KBA": (_all_macs(costs) - costs["kernel_basis_macs"]) / 1e9,
            }
            for s, costs in sizes.items()
        ]
        blocks.append(table(rows, width=width))
    blocks.append(f"  {size_name}, {_channels(portrait.info.channels)}\n{_info(portrait.info)}")
    blocks.append(_work(portrait.info))
    blocks.append(_memory(portrait))
    blocks.append(_layers(portrait, width=width))
    return "\n\n".join(blocks)


def _all_macs(costs: dict[str, int]) -> int:
    return sum(value for kind, value in costs.items() if kind.endswith("_macs"))


def _channels(count: int) -> str:
    return {1: "gray pictures", 3: "colour pictures"}.get(count, f"{count} channels")


def _info(info: "ModelInfo") -> str:
    """Hyper-parameters and what they lead to."""
    rows: dict[str, Cell] = {key: _spoken(value) for key, value in info.hyperparameters.items()}
    field = info.receptive_field
    return pairs(
        rows
        | {
            "parameters": info.parameters,
            "sides": f"multiples of {info.multiple} px" if info.multiple > 1 else "any",
            "a pixel sees": "the whole picture" if field is None else f"{field:,} px every way",
            "tiles": "give the whole picture's result"
            if info.tiles == "exact"
            else "have their own pooled statistics, so they differ a little",
            "sees the page": "a thumbnail of it" if info.sees_page else "no",
            "precision": _precision(info),
        }
    )


def _precision(info: "ModelInfo") -> str:
    fits = {
        "bfloat16 autocast": info.bf16_autocast,
        "float16 autocast": info.fp16_autocast,
        "float16 throughout": info.fp16,
    }
    good = [name for name, fit in fits.items() if fit]
    bad = [name for name, fit in fits.items() if not fit]
    return ", ".join(["float32", *good]) + (f"; not {', '.join(bad)}" if bad else "")


def _work(info: "ModelInfo") -> str:
    macs = {"convolutions": info.conv_macs}
    if info.kernel_basis_macs:
        macs["kernel basis (KBA)"] = info.kernel_basis_macs
    if info.attention_macs:
        macs["attention"] = info.attention_macs
    macs["total"] = info.macs
    if info.kernel_basis_macs:
        macs["total without KBA"] = info.macs - info.kernel_basis_macs
    rows: list[dict[str, Cell]] = [
        {"work": kind, "GMACs": count / 1e9} for kind, count in macs.items()
    ]
    return f"  one picture of {info.macs_side}x{info.macs_side} px\n{table(rows)}"


def _memory(portrait: "Portrait") -> str:
    memory = portrait.training_memory
    kind = "mixed precision" if portrait.amp else "float32"
    rows: dict[str, Cell] = {
        "weights": size(memory.weights_bytes),
        "AdamW's moments": size(memory.moments_bytes),
        "averaged weights": size(memory.average_bytes),
        "gradients by then": size(memory.gradients_bytes),
        "activations": size(memory.activations_bytes),
        "temporaries": size(memory.temporaries_bytes),
        "training": f"{size(memory.total_bytes)} in all, at the fullest moment",
        "restoring": f"{size(portrait.restoring_bytes_per_mpix)} for a megapixel",
    }
    work = f"patch {portrait.patch}, batch {portrait.batch}, {kind}"
    return f"  memory, estimated: {work}\n{pairs(rows)}"


def _layers(portrait: "Portrait", *, width: int) -> str:
    whole = max(1, portrait.info.parameters)
    rows: list[dict[str, Cell]] = [
        {
            "part": layer.name,
            "kind": layer.kind,
            "parameters": layer.parameters,
            "share": f"{100 * layer.parameters / whole:.1f} %".rjust(7),
            "GMACs": layer.macs / 1e9,
            "output": "x".join(map(str, layer.output)),
        }
        for layer in portrait.layers
    ]
    narrow = [{k: v for k, v in row.items() if k != "kind"} for row in rows]
    too_wide = width and max(map(len, table(rows).splitlines()), default=0) > width
    return table(narrow if too_wide else rows, width=width)


def _spoken(value: object) -> str:
    """A hyper-parameter as `--hyper` takes it."""
    if isinstance(value, tuple):
        return "[" + ",".join(map(_spoken, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
