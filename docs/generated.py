"""What the site has besides the pages here: MkDocs calls this while it builds.

README, contributing, benchmarks and changelog are pages where they stand; the command line's help and the library's
reference come from the code; pictures of datasets from builds of them.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/GPU.md": "gpu.md",
    "CITATION.cff": "CITATION.cff",
}
"""Files of the repository that are pages of the site, and the places they have there."""
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
"""The path of a link to another file."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in this folder."""
    from mkdocs.structure.files import File

    pages = {place: ROOT.joinpath(path).read_text(encoding="utf-8") for path, place in ELSEWHERE.items()}
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links lead where their files stand on the site."""
    here = page.file.src_uri
    return LINK.sub(lambda link: moved(link[1], here), markdown)


def moved(target: str, page: str) -> str:
    """A relative link of a file of the repository, on its page of the site."""
    source = {place: path for path, place in ELSEWHERE.items()}.get(page, f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    place = ELSEWHERE.get(path, path.removeprefix("docs/"))
    return posixpath.relpath(place, posixpath.dirname(page) or ".")
