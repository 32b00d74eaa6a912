"""An entry of the navigation that ends with a slash is a folder: its pages by name, or nothing while there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> None:
    config.nav = opened(config.nav, Path(config.docs_dir))


def opened(entries: list[dict[str, Any]], docs: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for entry in entries:
        for title, target in entry.items():
            if isinstance(target, list):
                found.append({title: opened(target, docs)})
            elif not target.endswith("/"):
                found.append({title: target})
            elif pages := [page.relative_to(docs).as_posix() for page in sorted((docs / target).glob("*.md"))]:
                found.append({title: pages})
    return found
