"""The scripts of examples/ as pages, which links to them from docs/ lead to; they are in no navigation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

LANGUAGES = {".py": "python", ".js": "javascript", ".mjs": "javascript", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = Path(config.docs_dir).parent
    for script in sorted((root / "examples").rglob("*")):
        if script.suffix in LANGUAGES and "node_modules" not in script.parts:
            name = script.relative_to(root).as_posix()
            content = f"# {name}\n\n````{LANGUAGES[script.suffix]}\n{script.read_text()}````\n"
            hidden = InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, f"{name}.md", content=content, inclusion=hidden))
    return files


def on_page_markdown(markdown: str, **more: Any) -> str:
    """`../examples/NAME`, as it lies in the repository, to where its page is."""
    return re.sub(r"\]\(\.\./((?:\.\./)*examples/[^)#]+)", r"](\1.md", markdown)
