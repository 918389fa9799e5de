"""Text from elsewhere, made safe for where people read it: names of classes and files, words of servers, errors.

There is one function for each place, applied where text leaves the program (``Reporter``, the commands' ``tell``, the
templates of cards and reports), so that nobody else needs to think of it. None of them changes ordinary text.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from markupsafe import Markup

HIDDEN = "***"
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
"""Controls of terminals, of lines and of the direction of text; half characters, which stand for bytes of no text."""
_SECRET_VARIABLE = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|(ACCESS|API|ACCOUNT|SHARED)_KEY)$", re.IGNORECASE)
_SHORTEST_SECRET = 6
_SECRETS = (
    (re.compile(r"(\w://)[^/?#\s]*@"), r"\1"),
    (re.compile(r"(\w://[^\s?#'\"]*)[?#][^\s'\"]*"), r"\1"),
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/-]{6,}=*", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), HIDDEN),
)
"""What is secret wherever it stands: of a URL user, password, query and fragment; credentials of a request."""
_MARKDOWN = re.compile(r"[\\|\[\]`*]|~(?=~)|(?<!\w)_|_(?!\w)")
_SPACE = re.compile(r"\s+")


def few(words: Sequence[str], shown: int = 3) -> str:
    """The first of some words, and three dots where there are more."""
    return ", ".join(words[:shown]) + (", ..." if len(words) > shown else "")


def joined(words: Sequence[str], last: str = "and") -> str:
    """``a, b and c``; with another word before the last one."""
    return f" {last} ".join([*([", ".join(words[:-1])] if words[1:] else []), *words[-1:]])


def counted(number: int, one: str, several: str = "") -> str:
    """``1 image``, ``1,234 images``, ``2 classes``; ``several`` where it does not end with a mere ``s`` or ``es``."""
    ending = "es" if one.endswith(("s", "x", "sh", "tch")) else "s"
    return f"{number:,} {one if number == 1 else several or one + ending}"


def operations(number: float) -> str:
    """``3.31 TFLOP``, ``1,234 PFLOP``: floating-point operations, in the largest unit of which there is one."""
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if number >= size:
            amount = number / size
            return f"{amount:,.0f} {unit}" if amount >= 100 else f"{amount:.3g} {unit}"
    return f"{number:,.0f} FLOP"


def terminal(text: object) -> str:
    """One line of a terminal or of a log: what would move the cursor or start a line is written out, such as escapes.

    Nothing secret is in it: see ``without_secrets``.
    """
    return _seen(without_secrets(str(text)))


def plain(content: Any) -> Any:
    """JSON values in which every text is one line of text, as on a terminal."""
    if isinstance(content, dict):
        return {terminal(name): plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    return terminal(content) if isinstance(content, str) else content


def markdown(value: object) -> Markup:
    """Text within a line or a table's cell of Markdown: it starts no markup, HTML, link or code, and ends no cell."""
    from markupsafe import Markup

    text = _one_line(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(_MARKDOWN.sub(r"\\\g<0>", text))  # noqa: S704 (escaped right here)


def html(value: object) -> Markup:
    """Text within an element or an attribute of HTML."""
    from markupsafe import escape

    return escape(_one_line(value))


def code(value: object) -> Markup:
    """A span of code in Markdown, within a line or a cell."""
    from markupsafe import Markup

    text = _one_line(value)
    if text and not re.search(r"[`|\\]", text):
        return Markup(f"`{text}`")  # noqa: S704 (nothing in it ends it)
    return Markup(f"<code>{markdown(text)}</code>")  # noqa: S704 (escaped right here)


def verbatim(value: object) -> Markup:
    """A part of a line within a fenced block of Markdown, which it does not end."""
    from markupsafe import Markup

    return Markup(_one_line(value).replace("`", "'"))  # noqa: S704 (nothing else is markup there)


def without_secrets(text: str) -> str:
    """A text without what only this user may know, also where a server repeats it or an error holds a URL with it."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    for secret in _known_secrets():
        text = text.replace(secret, HIDDEN).replace(quote(secret, safe="", errors="replace"), HIDDEN)
    return text


def without_credentials(text: str) -> str:
    """A text whose URLs have no user, password, query and fragment."""
    for pattern, replacement in _SECRETS[:2]:
        text = pattern.sub(replacement, text)
    return text


def _known_secrets() -> list[str]:
    """Tokens and passwords that this process was given, longest first."""
    found = {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)}
    if (hub := sys.modules.get("huggingface_hub")) is not None:
        found.add(hub.get_token() or "")
    return sorted((value for value in found if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)


def _one_line(value: object) -> str:
    return _seen(_SPACE.sub(" ", str(value)))


def _seen(text: str) -> str:
    return _UNSEEN.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    letter = found[0]
    byte = ord(letter) - 0xDC00  # Python's stand-in for a byte of a file name that is no text
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else letter.encode("unicode_escape").decode()
