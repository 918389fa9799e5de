"""Text from elsewhere reaches terminal, Markdown and HTML as text: it moves, starts, ends and tells nothing."""

from __future__ import annotations

import html.parser
import re
import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from ule_datasets.base import shown
from ule_datasets.base.progress import Reporter
from ule_datasets.base.shown import operations
from ule_datasets.base.templates import environment

HOSTILE = [
    *("\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "a\rb", "a\nwarning: b", "a\x00b", "a\x08b", "a\x85b"),
    *("a\u2028b", "\u202eevil\u202c", "a\u200bb", "\udcff\udc1b", "\ud800"),
    *("<script>alert(1)</script>", "</pre><b>", '" onload="x', "&lt;", "<!--"),
    *("a | b", "\\|", "`code`", "``` \n# Title\n```", "[x](http://evil)", "![x](y)", "**bold**", "_em_", "~~gone~~"),
]
ORDINARY = [
    *("tench", "snake_case_name", "CIFAR-10 (50,000 images)", "l_inf 8/255, then l_0 1 pixel", "n01440764"),
    "Ünlü 猫 👩\u200d🔬",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_not_changed(text: str) -> None:
    assert shown.terminal(text) == shown.markdown(text) == shown.html(text) == shown.verbatim(text) == text
    assert shown.code(text) == f"`{text}`"


@given(st.one_of(st.sampled_from(HOSTILE), st.text()))
def test_no_text_moves_the_cursor_or_ends_its_line(text: str) -> None:
    for show in (shown.terminal, shown.markdown, shown.html, shown.code, shown.verbatim):
        line = show(text)
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\ud800-\udfff]", line)
        assert len(line.splitlines()) <= 1
        line.encode()


@given(st.one_of(st.sampled_from(HOSTILE), st.text()))
def test_no_text_is_markup(text: str) -> None:
    plain = re.sub(r"\\.|&\w+;", "", shown.markdown(text))
    assert not set(plain) & set("|[]`*<>")
    assert "~~" not in plain
    seen = list[str]()
    parser = html.parser.HTMLParser()
    parser.handle_starttag = parser.handle_endtag = lambda tag, *_: seen.append(tag)  # type: ignore[method-assign]
    parser.feed(f"{shown.html(text)}")
    assert not seen
    assert '"' not in shown.html(text)
    assert "```" not in shown.verbatim(text)
    span = shown.code(text)
    assert re.fullmatch(r"`[^`|\\]+`", span) or span == f"<code>{shown.markdown(text)}</code>"


def test_bytes_of_no_text_are_written_as_bytes() -> None:
    assert shown.terminal(b"caf\xe9.png".decode("utf-8", "surrogateescape")) == "caf\\xe9.png"


def test_secrets_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "my secret/token")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    said = [
        "the server says: who is my secret/token?",
        f"GET https://host/{quote('my secret/token', safe='')}",
        "https://user:hunter22@host/x?X-Amz-Signature=abcdef failed",
        "Authorization: Bearer abc.def-ghi=",
        "no such token hf_abcdefghijklmnop",
        "wJalrXUtnFEMI is not valid",
    ]
    for text in said:
        line = shown.terminal(text)
        assert not re.search("my secret|my%20secret|hunter22|abcdef|abc.def|hf_a|wJal", line)
    assert shown.terminal("https://user:hunter22@host/x?X-Amz-Signature=abcdef failed") == "https://host/x failed"


def test_short_or_empty_variables_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("SOME_TOKEN", "a")
    assert shown.terminal("a banana") == "a banana"


def test_the_reporter_and_the_commands_write_safe_lines(capsys: pytest.CaptureFixture[str]) -> None:
    from ule_datasets.base.errors import InputError
    from ule_datasets.cli import running as cli

    Reporter().say("\x1b[2Jfile\nwarning: no")
    Reporter().warn("\x1b[2Jfile")
    cli.tell("\x1b[2Jfile\nnext", to=sys.stderr)

    def fails(_: list[str]) -> int:
        raise InputError("\x1b[2Jfile\nnext", "second line")

    def breaks(_: list[str]) -> int:
        raise OSError(2, "No such file", "\udcff\x1b[2J\n")

    assert cli.run("ule-build", fails, []) == cli.run("ule-build", breaks, ["--debug"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert [line for line in err.splitlines() if line.startswith(("warning: no", "next"))] == []
    assert "ule-build: \\x1b[2Jfile\\nnext\nsecond line\n" in err
    assert err.endswith("ule-build: No such file (\\xff\\x1b[2J\\n)\n")


def test_logs_and_warnings_of_libraries_are_safe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging
    import warnings

    from ule_datasets.cli import running as cli

    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    before = logging.getLogRecordFactory()

    def work(_: list[str]) -> int:
        handler = logging.StreamHandler(sys.stderr)
        logger = logging.getLogger("a library")
        logger.addHandler(handler)
        logger.warning("%s says %s", "the server", "\x1b[2J hf_abcdefghijklmnop")
        logger.removeHandler(handler)
        print(warnings.formatwarning("\x1b[2J", UserWarning, "x.py", 1))
        return 0

    try:
        assert cli.run("ule-build", work, []) == 0
    finally:
        logging.setLogRecordFactory(before)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert err == "the server says \\x1b[2J ***\n"


def test_a_template_shows_everything_safely_but_its_own_markup() -> None:
    text = "{% macro cell(x) %}<{{ x }}>{% endmacro %}{{ cell(a) }} {{ 'c' | code }} {{ b }} "
    text += "{{ [a, a] | join(' ') }} {{ 'x' ~ a }}"
    markdown = environment(shown.markdown).from_string(text).render(a="|`", b=Markup("<b>"))
    assert markdown == "<\\|\\`> `c` <b> \\|\\` \\|\\` x\\|\\`"
    page = environment(shown.html).from_string("<p>{{ a }}{{ b }}</p>").render(a="<\x1b>", b=Markup("<b>"))
    assert page == "<p>&lt;\\x1b&gt;<b></p>"


@pytest.mark.parametrize(
    ("number", "one", "told"),
    [
        (0, "image", "0 images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1234, "batch", "1,234 batches"),
        (3, "epoch", "3 epochs"),
        (2, "process", "2 processes"),
        (2, "box", "2 boxes"),
    ],
)
def test_numbers_have_their_nouns(number: int, one: str, told: str) -> None:
    assert shown.counted(number, one) == told


@pytest.mark.parametrize(
    ("number", "told"),
    [(0, "0 FLOP"), (999, "999 FLOP"), (8.31e11, "831 GFLOP"), (3.312e12, "3.31 TFLOP"), (1.2344e18, "1,234 PFLOP")],
)
def test_operations_are_told_in_the_largest_unit_of_which_there_is_one(number: float, told: str) -> None:
    assert operations(number) == told
