"""Fenced blocks of `math` become MathML, which browsers draw themselves: no script, no font."""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig


def on_config(config: MkDocsConfig) -> None:
    fence = {"name": "math", "class": "formula", "format": _formula}
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [fence]}


def _formula(source: str, language: str, css_class: str, options: dict[str, Any], md: Any, **more: Any) -> str:
    return f'<div class="{css_class}">{convert(source, display="block")}</div>'
