"""`kbdenoise models`: the table of models, and everything about one of them."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.console import Console
from kbdenoise.cli.filters import filter_text, filters
from kbdenoise.cli.options import command, follow, group
from kbdenoise.cli.portrait import portrait_text
from kbdenoise.cli.words import Cell, table
from kbdenoise.errors import SettingsError, nearest

if TYPE_CHECKING:
    from kbdenoise.models.portrait import Portrait
    from kbdenoise.models.spec import ModelInfo, ModelSpec

_KNOWN_SIDE = 256  # px that the costs of the named sizes are known for
_MOST = 16_384  # px or pictures: shapes far beyond are more than torch can count


@command("kbdenoise models list", "kbdenoise models list --quiet", name="models list")
def list_(console: Console) -> None:
    """List the models and their sizes, and the classical filters."""
    from kbdenoise.imaging.classical.summaries import SUMMARIES
    from kbdenoise.models.zoo import MODELS

    rows: list[dict[str, Cell]] = [
        {
            "model": name,
            "parameters": _known(name).get(next(iter(spec.sizes)), {}).get("parameters"),
            "sizes": _counted(list(spec.sizes)),
            "about": spec.summary,
        }
        for name, spec in MODELS.items()
    ]
    filter_rows: list[dict[str, Cell]] = [
        {"filter": name, "about": summary} for name, summary in SUMMARIES.items()
    ]
    content: list[dict[str, Any]] = []
    if console.as_json:
        content = [{"name": n, "kind": "model", **_table_entry(n, s)} for n, s in MODELS.items()]
        content += [{"name": name, "kind": "filter", **f} for name, f in filters().items()]
    console.show(
        {"models": content},
        text=f"{table(rows, width=console.width)}\n\n{table(filter_rows, width=console.width)}",
        short="\n".join([*MODELS, *SUMMARIES]),
        next_command=f"kbdenoise models show {next(iter(MODELS))}",
    )


@command(
    "kbdenoise models show kbnet-s",
    "kbdenoise models show unet --size medium --patch 256 --batch 4",
    name="models show",
)
def show(
    console: Console,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A model or a filter.", autocompletion=complete.models),
    ],
    size_name: Annotated[
        str,
        typer.Option("--size", metavar="TEXT", help="A named size; the first if not given."),
    ] = "",
    width: Annotated[
        int,
        typer.Option(metavar="INT", min=0, help="Channels at full resolution; 0: the size's own."),
    ] = 0,
    hyper: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Any hyper-parameters: 'blocks=8 norm=none'."),
    ] = "",
    channels: Annotated[
        int,
        typer.Option(metavar="INT", min=0, max=64, help="Channels of a picture; 0: the size's."),
    ] = 0,
    side: Annotated[
        int,
        typer.Option(metavar="PX", min=1, max=_MOST, help="Side of the square that is restored."),
    ] = _KNOWN_SIDE,
    patch: Annotated[
        int, typer.Option(metavar="PX", min=1, max=_MOST, help="Side of a training patch.")
    ] = 128,
    batch: Annotated[
        int, typer.Option(metavar="INT", min=1, max=_MOST, help="Patches per optimiser step.")
    ] = 8,
    amp: Annotated[
        bool, typer.Option("--amp/--no-amp", help="Memory in mixed precision, or in float32.")
    ] = True,
    layers: Annotated[
        bool, typer.Option("--layers", help="Every layer instead of the model's parts.")
    ] = False,
) -> None:
    """Show a model: its paper, its hyper-parameters, its work, its memory and its parts."""
    from kbdenoise.imaging.classical.summaries import SUMMARIES
    from kbdenoise.models.zoo import MODELS, find_model, named_size

    if name in SUMMARIES:
        if size_name or width or hyper or channels:
            raise SettingsError(
                f"{name} is a classical filter, without size, width, channels or hyper-parameters",
                hint=f"kbdenoise models show {name} shows its parameters",
            )
        facts = filters()[name]
        console.show(
            {"name": name, "kind": "filter", **facts},
            text=filter_text(name, facts, width=console.width),
            short="\n".join(facts["parameters"]),
        )
        return
    if name not in MODELS and "+" not in name:
        raise SettingsError(
            f"there is no model called {name!r}", hint=nearest(name, [*MODELS, *SUMMARIES])
        )
    from kbdenoise.models.portrait import portray
    from kbdenoise.notation import parse_hyper

    spec = find_model(name)
    chosen = size_name or next(iter(spec.sizes))
    own = ({"width": width} if width else {}) | parse_hyper(hyper)
    if width and own["width"] != width:
        raise SettingsError(f"--width {width} contradicts width={own['width']} of --hyper")
    portrait = portray(
        name,
        channels=channels or spec.published_channels(chosen),
        side=side,
        patch=patch,
        batch=batch,
        amp=amp,
        every_layer=layers,
        **(named_size(name, chosen) | own),
    )
    sizes = {} if size_name or own else _sizes(name, spec, channels=channels)
    asked = {"--width": str(width) if width else "", "--hyper": hyper}
    more = [word for option, value in asked.items() if value for word in (option, value)]
    console.show(
        _content(name, chosen, spec, portrait) | {"sizes": sizes or list(spec.sizes)},
        text=portrait_text(portrait, spec, size_name=chosen, sizes=sizes, width=console.width),
        short="\n".join(spec.sizes),
        next_command=follow("train", "--model", name, "--size", chosen, *more),
    )


def _known(name: str) -> dict[str, dict[str, int]]:
    """What a model's named sizes cost, without building one."""
    from kbdenoise.models.known_costs import KNOWN_COSTS

    return {s: costs._asdict() for s, costs in KNOWN_COSTS.get(name, {}).items()}


def _counted(names: list[str]) -> str:
    """The first name, and how many others there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _table_entry(name: str, spec: "ModelSpec") -> dict[str, Any]:
    known = _known(name)
    sizes = {
        s: {"channels": spec.published_channels(s), "hyperparameters": h, **known.get(s, {})}
        for s, h in spec.sizes.items()
    }
    return _facts(spec) | {"macs_side": _KNOWN_SIDE, "sizes": sizes}


def _facts(spec: "ModelSpec") -> dict[str, Any]:
    """What the table says of a model in all its sizes."""
    wanted = ("summary", "paper", "source", "licence", "tiles", "sees_page")
    precisions = ("fp16", "fp16_autocast", "bf16_autocast")
    return {name: getattr(spec, name) for name in (*wanted, *precisions)}


def _sizes(name: str, spec: "ModelSpec", *, channels: int) -> dict[str, dict[str, int]]:
    """Parameters and multiply-accumulates at 256 px of all named sizes."""
    from kbdenoise.models.build import describe_model

    known = {} if channels else _known(name)
    return {
        s: known.get(s)
        or _costs(describe_model(name, channels=channels or spec.published_channels(s), **h))
        for s, h in spec.sizes.items()
    }


def _costs(info: "ModelInfo") -> dict[str, int]:
    return {
        "parameters": info.parameters,
        "conv_macs": info.conv_macs,
        "kernel_basis_macs": info.kernel_basis_macs,
        "attention_macs": info.attention_macs,
    }


def _content(name: str, chosen: str, spec: "ModelSpec", portrait: "Portrait") -> dict[str, Any]:
    """All of it, flat where it can be, for --json."""
    info, memory = portrait.info, portrait.training_memory
    return {
        "name": name,
        "kind": "model",
        "size": chosen,
        **_facts(spec),
        "channels": info.channels,
        "hyperparameters": info.hyperparameters,
        "multiple": info.multiple,
        "receptive_field": info.receptive_field,
        "macs_side": info.macs_side,
        **_costs(info),
        "macs": info.macs,
        "training_memory": {
            "patch": portrait.patch,
            "batch": portrait.batch,
            "amp": portrait.amp,
            **asdict(memory),
            "total_bytes": memory.total_bytes,
        },
        "restoring_bytes_per_mpix": portrait.restoring_bytes_per_mpix,
        "layers": portrait.layers,
    }


app = group("models", list_, show, default=list_, help="List the models, show what they cost.")
