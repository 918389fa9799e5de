"""Whatever README and docs show is so: commands and programs run, links lead somewhere, the site builds."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import documented
import pytest
import typer
import yaml
from documented import NOT_RUN, OURS, PAGES, PLANNED, ROOT, Block, Command, blocks, commands
from helpers import class_names, make_splits, write_parquet
from hub import WRITE_TOKEN, HubServer, Token

import cards
from builders import RECIPES
from ule_datasets.base.version import __version__
from ule_datasets.cli import build, verify

SHELL = [command for page in PAGES for block in blocks(page) if block.language == "bash" for command in commands(block)]
FAST = ("README.md", "docs/tutorials/own-method.md")
"""Pages that are gone through among the fast tests; the others are slow."""
OUTSIDE = ("CONTRIBUTING.md", "CHANGELOG.md", *(f"benchmarks/{name}.md" for name in ("README", "EVIDENCE", "GPU")))
"""Pages whose commands have tests of their own, and whose links are looked at here."""
ON_THE_SITE: set[str] = set(runpy.run_path(str(ROOT / "docs/generated.py"))["ELSEWHERE"])
"""Files outside ``docs`` that have a place there."""
INLINE = re.compile(r"`((?:ule-build|ule-verify) [^`]+)`")


def parsed(command: Command) -> typer.Context:
    """A command of ours, as far as its words are understood before it does anything."""
    module = build if command.words[0] == "ule-build" else verify
    return typer.main.get_command(module.app).make_context(command.words[0], list(command.words[1:]))  # type: ignore[return-value]


def sentences(page: str) -> Iterator[Command]:
    """Commands of ours in the text and tables of a page."""
    text = documented.FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for line in INLINE.findall(text):
        whole = " ".join(line.split())
        if not re.search(r"\.\.\.|\|| [A-Z]+\b", whole):  # a shape, not a command
            yield from commands(Block(page, 0, "bash", whole))


@pytest.mark.parametrize("command", SHELL, ids=lambda command: f"{command.block.page}:{command.line[:40]}")
def test_a_command_is_understood(command: Command) -> None:
    if command.words[0] not in OURS:
        assert command.words[0] in NOT_RUN, "a command that is not run needs a reason"
        return
    context = parsed(command)
    name = context.params.get("recipe")
    assert name is None or name in RECIPES or name.endswith(".py") or "--list" in command.words


@pytest.mark.parametrize("page", [*PAGES, *OUTSIDE])
def test_commands_in_sentences_are_understood(page: str) -> None:
    for command in sentences(page):
        assert parsed(command), command.line


def test_every_exception_is_of_a_command_that_is_shown() -> None:
    assert set(NOT_RUN) == {command.words[0] for command in SHELL} - set(OURS)
    assert set(PLANNED) <= {command.line for command in SHELL}


def test_every_block_says_what_it_is() -> None:
    languages = {(block.page, block.line): block.language for page in PAGES for block in blocks(page)}
    assert set(languages.values()) <= {"bash", "python", "toml", "text"}, languages


@pytest.mark.parametrize("page", [*PAGES, *OUTSIDE])
def test_links_lead_to_files(page: str) -> None:
    text = documented.FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text):
        path = (ROOT / page).parent.joinpath(target).resolve()
        assert path.exists(), f"{page}: {target}"
        name = path.relative_to(ROOT).as_posix()
        assert name in ON_THE_SITE or name.startswith("docs/"), f"{page}: the site does not have {target}"


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= 130
    assert lines.index("```bash") <= 30, "one screen before the first command"
    install = 'python3 -m venv .venv && . .venv/bin/activate && pip install -e "'
    first = next(blocks("README.md"))
    assert [line.partition(" && ule-build")[0] for line in first.text.splitlines() if line[0] != "#"] == [
        f'{install}.[plots]"',
        f'{install}.[test]" && pytest -n auto',
        "ule-build --list",
    ]


def test_no_sentence_stands_in_two_places() -> None:
    found: dict[str, str] = {}
    for page in (*PAGES, "CONTRIBUTING.md"):
        text = documented.FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
        prose = " ".join(line for line in text.splitlines() if not line.startswith(("|", "#", "<!--")))
        for sentence in re.split(r"(?<=[.:;?]) ", prose):
            if len(sentence.split()) > 8:
                assert found.setdefault(sentence, page) == page, f"{page}: {sentence}"


def test_the_citation_file_names_the_papers_of_all_methods() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == citation["preferred-citation"]["version"] == __version__
    needed = {method.citation for recipe in RECIPES.values() for method in recipe.methods if method.citation}
    papers = [cards.paper(key) for key in needed]
    named = [{"title": each["title"], "url": each["url"]} for each in citation["references"]]
    assert sorted(named, key=str) == sorted(papers, key=str)


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    """A Hub with the sources that pages read from it."""
    with HubServer(tokens={WRITE_TOKEN: Token("me", "write", {"ule": "admin"})}) as server:
        yield server


@pytest.mark.parametrize(
    "page", [page if page in FAST else pytest.param(page, marks=pytest.mark.slow) for page in PAGES]
)
def test_a_page_can_be_gone_through(page: str, hub: HubServer, tmp_path: Path) -> None:
    if not any(block.file or block.language in ("bash", "python") for block in blocks(page)):
        pytest.skip("it shows nothing to run")
    files = write_parquet(tmp_path / "on-the-hub", make_splits(per_class=12), class_names(10))
    for repository in ("uoft-cs/cifar10", "ILSVRC/imagenet-1k"):
        hub.put(repository, {f"data/{path.name}": path for path in files.iterdir()})
    home = tmp_path / "home"
    home.mkdir()
    environment = hub.environment(
        token=WRITE_TOKEN,
        home=home / ".hub",
        HOME=str(home),
        ULE_CACHE=str(home / ".cache"),
        ULE_WEIGHTS=str(home / "weights"),
        PYTHONPATH=os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
        OMP_NUM_THREADS="1",
    )
    done = subprocess.run(
        [sys.executable, documented.__file__, page],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert hub.unexpected == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    command_line = (site / "reference/command-line.html").read_text(encoding="utf-8")
    assert all(name in command_line for name in ("--source", "--perturbation-only", "--claims", "--analyses"))
    assert "PoisonedDataset" in (site / "reference/library/index.html").read_text(encoding="utf-8")
    assert "pictures/ops-cifar10.png" in (site / "catalogue.html").read_text(encoding="utf-8")
    assert "12.9 ± 5.0 (98.6);<br" in (site / "index.html").read_text(encoding="utf-8")
    theme = "".join(path.read_text(encoding="utf-8") for path in site.glob("assets/stylesheets/*.css"))
    own = (site / "site.css").read_text(encoding="utf-8")
    assert {name for name in re.findall(r"md-[\w-]+", own) if name not in theme} == set(), (
        "the theme calls it otherwise"
    )
