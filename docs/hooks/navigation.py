"""An entry of the navigation that ends with a slash is a folder: its pages by name, or nothing while there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> None:
    config.nav = _filled(config.nav, Path(config.docs_dir))


def _filled(entries: list[dict[str, Any]], docs: Path) -> list[dict[str, Any]]:
    filled = []
    for entry in entries:
        for title, target in entry.items():
            if isinstance(target, list):
                filled.append({title: _filled(target, docs)})
            elif not target.endswith("/"):
                filled.append({title: target})
            elif pages := [page.relative_to(docs).as_posix() for page in sorted((docs / target).glob("*.md"))]:
                filled.append({title: pages})
    return filled
