"""`kbdenoise models`: the table of architectures."""

from typing import Annotated

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.console import Console
from kbdenoise.cli.options import command, group
from kbdenoise.cli.words import Cell, table


@command("kbdenoise models list", "kbdenoise models list --quiet", name="models list")
def list_(console: Console) -> None:
    """List the models and their sizes."""
    from kbdenoise.models.zoo import MODELS

    rows: list[dict[str, Cell]] = [
        {"model": name, "sizes": ", ".join(spec.sizes), "about": spec.summary}
        for name, spec in MODELS.items()
    ]
    content = [
        {
            "name": n,
            "sizes": list(s.sizes),
            "summary": s.summary,
            "paper": s.paper,
            "tiles": s.tiles,
        }
        for n, s in MODELS.items()
    ]
    console.show(
        {"models": content},
        text=table(rows, width=console.width),
        short="\n".join(MODELS),
        next_command=f"kbdenoise models show {next(iter(MODELS))}",
    )


@command("kbdenoise models show kbnet-s", "kbdenoise models show dncnn --json", name="models show")
def show(
    console: Console,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A model.", autocompletion=complete.models),
    ],
) -> None:
    """Show what the sizes of a model cost."""
    from kbdenoise.models.zoo import describe_model, find_model, named_size

    spec = find_model(name)
    sizes = {s: describe_model(name, channels=3, **named_size(name, s)) for s in spec.sizes}
    rows: list[dict[str, Cell]] = [
        {
            "size": size,
            "parameters": info.parameters,
            "GMACs at 256 px": (info.conv_macs + info.kernel_basis_macs) / 1e9,
            "size multiple": info.multiple,
            "sees px": "all" if info.receptive_field is None else str(info.receptive_field),
        }
        for size, info in sizes.items()
    ]
    head = f"  {name}: {spec.summary}\n  {spec.paper}"
    console.show(
        {"name": name, "sizes": sizes},
        text=f"{head}\n\n{table(rows, width=console.width)}",
        short="\n".join(sizes),
        next_command=f"kbdenoise train --model {name} --size {next(iter(sizes))}",
    )


app = group("models", list_, show, default=list_, help="List the models, show what they cost.")
