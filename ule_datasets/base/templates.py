"""Templates of cards and reports: whatever a template shows is made safe for its place once, by the environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2
from markupsafe import Markup

from ule_datasets.base import shown


def environment(place: Callable[[object], Markup], **options: Any) -> jinja2.Environment:
    """Where templates come from that show text by ``place``: ``shown.markdown`` or ``shown.html``.

    Markup that Python made or a template wrote itself stays as it is. In Markdown text within backticks is shown by the
    filter ``code``, and text within a fenced block by ``verbatim``.
    """
    made = jinja2.Environment(
        autoescape=True,  # what macros give is markup
        finalize=lambda value: value if isinstance(value, Markup) else place(value),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        **options,
    )
    made.filters.update(code=shown.code, verbatim=shown.verbatim)
    return made
