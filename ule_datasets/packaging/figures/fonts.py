"""Which font writes a text: Pillow's own where it has the letters, else fonts that are on this machine.

Pillow's own has ASCII. So pictures with other letters, and they alone, depend on the machine besides the version of
Pillow; an SVG has the text itself.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from PIL import ImageFont

FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (f"{os.environ.get('WINDIR', 'C:/Windows')}/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts"),
}
"""Where systems keep their fonts."""
ELSEWHERE = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
PREFERRED = ("DejaVuSans.", "NotoSans-Regular.", "LiberationSans-Regular.", "arial.", "Arial.", "NotoSansCJK-Regular.")
"""Beginnings of the names of files that are tried first, in this order."""
TRIED = 500
"""Fonts that are looked into at most."""
STAND_INS = ("LastResort", "AdobeBlank", "AdobeNotDef")
"""Beginnings of the names of fonts that have something for every letter, and no letter."""
_SUFFIXES = (".ttf", ".otf", ".ttc")
_NO_LETTER = chr(0x10FFFF)
"""No font has it; what is drawn in its place is what is drawn for every letter that is missing."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def split_by_font(text: str, size: int) -> list[tuple[Font, str]]:
    """The text in parts, each with a font that has its letters; what no font has is told by ``legible``."""
    chosen = [(_font_of(letter, size), letter) for letter in text]
    parts = itertools.groupby(chosen, key=lambda pair: id(pair[0]))
    grouped = [list(part) for _, part in parts]
    return [(part[0][0] or _own(size), "".join(letter for _, letter in part)) for part in grouped]


def legible(text: str, otherwise: str) -> str:
    """A text as it can be drawn here: itself, else without the signs on its letters, else ``otherwise``.

    So no letter is ever an empty box.
    """
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return next((words for words in (text, plain) if all(_font_of(letter, 11) for letter in words)), otherwise)


@cache
def _font_of(letter: str, size: int) -> Font | None:
    """The first font that has a letter; ``None``: there is none."""
    if letter.isascii() or _has(_own(size), letter):
        return _own(size)
    return next((font for path in _installed() if (font := _opened(path, size)) and _has(font, letter)), None)


@cache
def _own(size: int) -> Font:
    return ImageFont.load_default(size=size)


@cache
def _opened(path: Path, size: int) -> Font | None:
    try:
        return ImageFont.truetype(str(path), size)
    except OSError:  # damaged, or of a kind that is only named like one
        return None


def _has(font: Font, letter: str) -> bool:
    try:
        return bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER))
    except (OSError, UnicodeEncodeError):
        return False


@cache
def _installed() -> Sequence[Path]:
    """Font files on this machine, those of matplotlib included, the preferred ones first; always in one order."""
    found = list(itertools.islice(_font_files(), 20 * TRIED))
    rank = {
        path: next((n for n, name in enumerate(PREFERRED) if path.name.startswith(name)), len(PREFERRED))
        for path in found
    }
    return sorted(found, key=lambda path: (rank[path], path.name, str(path)))[:TRIED]


def _font_files() -> Iterator[Path]:
    folders = [Path(folder).expanduser() for folder in FOLDERS.get(sys.platform, ELSEWHERE)]
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin:
        folders.append(Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf")
    for folder in folders:
        for here, inner, names in os.walk(folder):
            inner.sort()
            yield from (Path(here) / name for name in sorted(names) if _is_font(name))


def _is_font(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) and not name.startswith(STAND_INS)
