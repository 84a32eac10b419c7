"""Make kaggle_offline.ipynb of kaggle_offline.py: `python examples/make_notebook.py`.

Cells begin with `# %%`, those of text with `# %% [markdown]`; `# !` is a command of the shell.
"""

import json
import re
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("kaggle_offline.py")


def notebook(text: str) -> dict[str, Any]:
    """The notebook of a script in cells."""
    parts = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)[1:]
    cells = [
        _cell(kind.strip(), body.strip())
        for kind, body in zip(parts[::2], parts[1::2], strict=True)
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def _cell(kind: str, body: str) -> dict[str, Any]:
    if kind == "[markdown]":
        text = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}
    code = re.sub(r"^# !", "!", body, flags=re.MULTILINE)
    source = code.splitlines(keepends=True)
    empty = {"execution_count": None, "metadata": {}, "outputs": []}
    return {"cell_type": "code", "source": source} | empty


if __name__ == "__main__":
    content = json.dumps(notebook(SOURCE.read_text(encoding="utf-8")), indent=1) + "\n"
    SOURCE.with_suffix(".ipynb").write_text(content, encoding="utf-8")
