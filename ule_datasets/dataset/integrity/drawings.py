"""Whether an SVG picture is a mere drawing: shapes, text and PNG images, nothing that runs or leads elsewhere."""

from __future__ import annotations

import re
from xml.parsers import expat

NAMESPACE = "http://www.w3.org/2000/svg"
ELEMENTS = frozenset({"svg", "title", "rect", "image", "text", "polyline", "circle"})
ATTRIBUTES = frozenset(
    {"x", "y", "width", "height", "cx", "cy", "r", "points", "viewBox", "preserveAspectRatio", "image-rendering"}
    | {"fill", "stroke", "stroke-width", "stroke-linejoin", "stroke-dasharray"}
    | {"text-anchor", "font-family", "font-size"}
)
"""Those whose values are numbers and words."""
OTHERS = {
    "xmlns": re.compile(re.escape(NAMESPACE)),
    "style": re.compile("image-rendering:pixelated"),
    "href": re.compile("data:image/png;base64,[A-Za-z0-9+/=]*"),
}
"""Attributes with values of their own."""
_PLAIN = re.compile(r"[\w#., -]*", re.ASCII)


def drawing_problem(content: bytes) -> str | None:
    """What an SVG file has that no picture of ours has; ``None``: nothing."""
    found: list[str] = []
    parser = expat.ParserCreate()

    def element(name: str, attributes: dict[str, str]) -> None:
        if name not in ELEMENTS:
            found.append(f"an element {name[:40]}")
        for attribute, value in attributes.items():
            pattern = _PLAIN if attribute in ATTRIBUTES else OTHERS.get(attribute)
            if pattern is None or not pattern.fullmatch(value):
                found.append(f"an attribute {attribute[:40]} of {name[:40]}")

    parser.StartElementHandler = element
    if not content.startswith(b"<svg ") or b"<!" in content or b"<?" in content:  # nor in another encoding
        return "declarations or instructions"
    try:
        parser.Parse(content, True)
    except expat.ExpatError:
        return "no well-formed content"
    return found[0] if found else None
