"""Draws the diagrams of the documentation while `make docs` builds it; mkdocs.yml names the function."""

from __future__ import annotations

from typing import Any


def draw(source: str, language: str, css_class: str, options: dict[str, Any], md: Any, **more: Any) -> str:
    """Return a block of Mermaid as an SVG picture; one that cannot be drawn ends the build."""
    import mermaidx

    # Its own white ground: the colours of the lines are made for one, also on a dark page.
    style = "background: white; padding: 1em; border-radius: 4px; overflow-x: auto"
    return f'<div class="{css_class}-drawn" style="{style}">{mermaidx.render(source).svg()}</div>'
