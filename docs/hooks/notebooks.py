"""MkDocs hook: the notebooks of ``examples/notebooks`` become pages, with the outputs they hold."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"


def on_files(files: Files, *, config: Any) -> Files:
    """Add each notebook as a page, its pictures, and the notebook itself to download."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        text, pictures = as_page(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, picture in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
        download = File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path))
        files.append(download)
    return files


def as_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and its pictures by the names that it refers to."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            if number == 0:
                parts.append(f"[Download this notebook]({path.name}){{ download }}")
        elif source.strip():
            parts.append(f"```python\n{source}\n```")
            for place, (kind, content) in enumerate(_outputs(cell, path)):
                if kind == "text":
                    parts.append(f"``` {{ .text .output }}\n{content.rstrip()}\n```")
                else:
                    name = f"{path.stem}-{number}-{place}.png"
                    pictures[name] = base64.b64decode(content)
                    parts.append(f"![{_alt(cell, path)}]({name})")
    return "\n\n".join(parts) + "\n", pictures


def _outputs(cell: dict[str, Any], path: Path) -> Iterator[tuple[str, str]]:
    for output in cell["outputs"]:
        if output["output_type"] == "stream" and output["name"] == "stdout":
            yield "text", "".join(output["text"])
        elif output["output_type"] in {"display_data", "execute_result"}:
            data = output["data"]
            kind = "image/png" if "image/png" in data else "text/plain"
            yield kind.removesuffix("/plain"), "".join(data[kind])
        else:
            raise PluginError(f"{path.name}: an output of a kind that no page shows: {output!r}")


def _alt(cell: dict[str, Any], path: Path) -> str:
    text = cell["metadata"].get("alt")
    if not text:
        raise PluginError(f'{path.name}: a picture without alternative text (metadata "alt")')
    return str(text)
