"""The card's word on its files is understood as the unmodified ``datasets`` library understands it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from helpers import run_python
from hypothesis import given, settings
from hypothesis import strategies as st

from ule_datasets.base.errors import InputError
from ule_datasets.sources.card import Declared, declared

FILES = (
    "README.md",
    "config.json",
    "data/.hidden-train.parquet",
    "data/.tmp/train-00000-of-00001.parquet",
    "data/__pycache__/train-00000-of-00001.parquet",
    "data/dataset_info.json",
    "data/extra/deep/train-00000-of-00001.parquet",
    "data/test-00000-of-00001.parquet",
    "data/train-00000-of-00002.parquet",
    "data/train-00001-of-00002.parquet",
    "data/validation-00000-of-00001.parquet",
    "images/test/cat/0.png",
    "images/train/cat/0.png",
    "images/train/cat/1.jpg",
    "images/train/dog/0.png",
    "odd[1].parquet",
    "odd1.parquet",
    "shards/test-000000.tar",
    "shards/train-000000.tar",
    "with space/été/train.parquet",
)
"""What there is, below the folder of the card."""


def split(name: str, path: Any) -> dict[str, Any]:
    return {"split": name, "path": path}


def one(data_files: Any, **more: Any) -> dict[str, Any]:
    return {"configs": [{"config_name": "default", "data_files": data_files, **more}]}


def several(*names: str, default: str | None = None) -> list[dict[str, Any]]:
    patterns = {"a": "data/train-*", "b": "data/test-*", "default": "odd1.parquet", "data": "shards/*"}
    return [
        {
            "config_name": name,
            "data_files": patterns.get(name, "data/v*"),
            **({"default": True} if name == default else {}),
        }
        for name in names
    ]


def labels(names: Any) -> dict[str, Any]:
    label = {"name": "label", "dtype": {"class_label": {"names": names}}}
    return {"features": [{"name": "image", "dtype": "image"}, label]}


LABELS = labels({"0": "b", "1": "a"})


class Case(NamedTuple):
    about: Mapping[str, Any]
    config: str | None = None


RESOLVED: dict[str, Case] = {
    "one string": Case(one("data/train-*")),
    "one file": Case(one("data/train-00000-of-00002.parquet")),
    "a list of strings": Case(one(["data/train-*", "data/test-*"])),
    "splits": Case(one([split("train", "data/train-*"), split("test", "data/test-*")])),
    "a split of several patterns": Case(one([split("train", ["data/train-*", "data/validation-*"])])),
    "a split of files": Case(one([split("train", ["data/train-00000-of-00002.parquet", "odd1.parquet"])])),
    "three splits": Case(one([split(name, f"data/{name}-*") for name in ("train", "validation", "test")])),
    "a split of another name": Case(one([split("train.clean_2", "data/train-*")])),
    "one pattern matches nothing": Case(one(["data/train-*", "data/none-*"])),
    "question marks": Case(one("data/train-0000?-of-00002.parquet")),
    "a set": Case(one("data/t[er]*-00000-*")),
    "a set that is not meant": Case(one("data/[!t]*.parquet")),
    "a name with brackets": Case(one("odd[[]1].parquet")),
    "a set in a name": Case(one("odd[1].parquet")),
    "all below a folder": Case(one("data/**")),
    "all": Case(one("**")),
    "any depth": Case(one("**/train-*.parquet")),
    "any depth below": Case(one("data/**/train-*.parquet")),
    "one level": Case(one("data/*/*/train-*.parquet")),
    "stars in the middle": Case(one("images/*/cat/*")),
    "stars and any depth": Case(one("**/cat/**")),
    "a dot before": Case(one("./data/train-*")),
    "hidden, asked for": Case(one("data/.hidden-*")),
    "hidden folder, asked for": Case(one("data/.tmp/*")),
    "hidden folder, asked for by a pattern": Case(one("data/.*/*")),
    "special folder, asked for": Case(one("data/__pycache__/*")),
    "special folder, by a pattern": Case(one("data/__*/*")),
    "a space and an accent": Case(one("with space/été/*")),
    "an image folder": Case(one([split("train", "images/train/**"), split("test", "images/test/**")])),
    "tar shards": Case(one([split("train", "shards/train-*"), split("test", "shards/test-*")])),
    "in a data_dir": Case(one("**/train-*", data_dir="data")),
    "in a deeper data_dir": Case(one("**/train-*", data_dir="data/extra")),
    "in a data_dir with a slash": Case(one("**/train-*", data_dir="data/")),
    "in the data_dir of the second": Case(
        {"configs": [*several("a"), {"config_name": "e", "data_files": "deep/*", "data_dir": "data/extra"}]}, "e"
    ),
    "empty data_dir": Case(one("data/train-*", data_dir="")),
    "the only configuration": Case({"configs": several("b")}),
    "called default": Case({"configs": several("a", "default", "b")}),
    "marked default": Case({"configs": several("a", "b", default="b")}),
    "chosen": Case({"configs": several("a", "b")}, "b"),
    "chosen against the default": Case({"configs": several("a", "b", default="b")}, "a"),
    "the only one that is described": Case(
        {"configs": several("a", "b"), "dataset_info": {"config_name": "b", **LABELS}}
    ),
    "described in a list": Case(
        {"configs": several("a", "b"), "dataset_info": [{"config_name": "a", **LABELS}, {"config_name": "b"}]}, "a"
    ),
    "described": Case({**one("data/train-*"), "dataset_info": LABELS}),
    "described without a name": Case({"configs": several("a", "b"), "dataset_info": LABELS}, "a"),
    "labels in a list": Case({**one("data/train-*"), "dataset_info": labels(["x", "y", "z"])}),
    "many labels": Case({**one("data/train-*"), "dataset_info": labels({str(n): f"c{n}" for n in range(11)})}),
}
"""Cards whose files ``load_dataset`` finds."""

ORACLE = """
import json, sys
from pathlib import Path
from datasets import load_dataset_builder

results = {}
for name, (folder, config) in json.loads(Path(sys.argv[1]).read_text()).items():
    try:
        builder = load_dataset_builder(folder, config)
        files = {s: [Path(f).relative_to(folder).as_posix() for f in fs] for s, fs in builder.config.data_files.items()}
        names = {n: f.names for n, f in (builder.info.features or {}).items() if hasattr(f, "names")}
        results[name] = [builder.config.name, files, names]
    except Exception as error:
        results[name] = f"{type(error).__name__}: {error}"
print(json.dumps(results))
"""


def card(about: Mapping[str, Any]) -> str:
    return f"---\nlicense: mit\n{yaml.safe_dump(dict(about), sort_keys=False)}---\n# Images\n"


def plant(folder: Path, files: tuple[str, ...] = FILES) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``load_dataset`` makes of every card: configuration, files, class names; or its complaint."""
    root, tasks = tmp_path_factory.mktemp("cards"), {}
    for number, (name, case) in enumerate({**RESOLVED, **REFUSED_BY_BOTH}.items()):
        folder = plant(root / str(number))
        (folder / "README.md").write_text(card(case.about))
        tasks[name] = (str(folder), case.config)
    (root / "tasks.json").write_text(json.dumps(tasks))
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "home"), "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    outcome = run_python(ORACLE, root / "tasks.json", environment=offline)
    assert outcome.code == 0, outcome.stderr
    results: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return results


def understood(case: Case) -> Declared:
    found = declared(card(case.about), set(FILES), case.config, "somebody/images")
    assert found is not None
    return found


@pytest.mark.parametrize("name", RESOLVED)
def test_the_files_are_those_that_load_dataset_takes(name: str, oracle: dict[str, Any]) -> None:
    assert isinstance(oracle[name], list), oracle[name]
    config, files, names = oracle[name]
    found = understood(RESOLVED[name])
    assert found.config == config
    assert {split: sorted(listed) for split, listed in found.files.items()} == {s: sorted(f) for s, f in files.items()}
    assert {column: list(listed) for column, listed in found.class_names.items()} == names


REFUSED_BY_BOTH: dict[str, Case] = {
    "no default": Case({"configs": several("a", "b")}),
    "no default, and a description of none of them": Case({"configs": several("a", "b"), "dataset_info": LABELS}),
    "two defaults": Case({"configs": [*several("a", "b", default="b"), *several("default")]}),
    "no such configuration": Case({"configs": several("a", "b")}, "c"),
    "configs that are a mapping": Case({"configs": {"config_name": "a"}}),
    "no config_name": Case({"configs": [{"data_files": "data/*"}]}),
    "a number": Case(one(7)),
    "a mapping": Case(one({"train": "data/train-*"})),
    "a split without a path": Case(one([{"split": "train"}])),
    "a path without a split": Case(one([{"path": "data/*"}])),
    "something else beside": Case(one([{"split": "train", "path": "data/*", "size": 1}])),
    "a mapping among strings": Case(one(["data/*", split("test", "data/test-*")])),
    "a split name with a dash": Case(one([split("train-clean", "data/train-*")])),
    "the same split twice": Case(one([split("train", "data/train-*"), split("train", "data/test-*")])),
    "no such file": Case(one("data/absent.parquet")),
    "no such file beside one": Case(one(["data/train-*", "data/absent.parquet"])),
    "nothing matches": Case(one("data/none-*")),
    "stars within a part": Case(one("data/tr**")),
    "labels with gaps": Case({**one("data/train-*"), "dataset_info": labels({"0": "a", "2": "b"})}),
    "labels that repeat": Case({**one("data/train-*"), "dataset_info": labels(["a", "a"])}),
}


@pytest.mark.parametrize("name", REFUSED_BY_BOTH)
def test_what_load_dataset_refuses_is_refused(name: str, oracle: dict[str, Any]) -> None:
    assert isinstance(oracle[name], str), oracle[name]
    with pytest.raises(InputError, match="somebody/images"):
        understood(REFUSED_BY_BOTH[name])


OUTSIDE = (
    "/etc/passwd", "../other/train-*", "data/../../x", "data/..", "https://collector.example/x.parquet",
    "hf://datasets/other/repository/x.parquet", "s3://bucket/x", "zip://*.parquet::data.zip", "file:///etc/passwd",
    "..\\x", "C:\\x", "\\\\host\\share",
)  # fmt: skip


@pytest.mark.parametrize("place", OUTSIDE)
@pytest.mark.parametrize("kind", ["data_files", "data_dir"])
def test_files_elsewhere_are_refused(place: str, kind: str) -> None:
    about = one(place) if kind == "data_files" else one("train-*", data_dir=place)
    with pytest.raises(InputError, match="names files outside of it"):
        understood(Case(about))


LAUGHS = [f"{after}: &{after} [{', '.join([f'*{name}'] * 9)}]" for name, after in itertools.pairwise("abcdefghi")]
BOMB = "\n".join(["---", "a: &a [x, x]", *LAUGHS, "configs:", "- config_name: a", "  data_files: *i", "---", ""])
MALFORMED: dict[str, tuple[str, str]] = {
    "not YAML": ("---\nconfigs: [\n---\n", "front matter that is not YAML"),
    "a tag": ("---\nconfigs: !!python/object/apply:os.system [true]\n---\n", "front matter that is not YAML"),
    "deep": ("---\nconfigs: " + "[" * 20_000 + "\n---\n", "front matter that is not YAML"),
    "long": ("---\nconfigs: []\n" + "#" * 2**23 + "\n---\n", "has more than 8,388,608 characters"),
    "a date as a name": ("---\nconfigs:\n- config_name: 2020-01-01\n---\n", "without a config_name"),
    "a split that is a truth": (card(one([{"split": True, "path": "x"}])), "neither patterns nor"),
    "a path that is a number": (card(one([{"split": "train", "path": [1]}])), "neither patterns nor"),
    "a data_dir that is a list": (card(one("x", data_dir=["data"])), "a path that is no text"),
    "features that are text": (card({**one("data/train-*"), "dataset_info": {"features": "x"}}), "no list"),
    "a dataset_info that is text": (card({"dataset_info": "x"}), "'dataset_info' that is none"),
    "a bomb": (BOMB, "neither patterns nor"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_card_is_refused_in_one_line(name: str) -> None:
    text, message = MALFORMED[name]
    with pytest.raises(InputError, match=message) as raised:
        declared(text, set(FILES), None, "somebody/images")
    assert len(str(raised.value)) < 1000
    assert "\n" not in str(raised.value)


NOTHING_SAID = (
    "",
    "# Images\n",
    "---\nlicense: mit\n---\n",
    "---\n: [broken\n---\n# Images\n",
    "configs:\n- 1\n",
    "---\n",
)


@pytest.mark.parametrize("text", NOTHING_SAID)
def test_a_card_that_says_nothing_of_files_is_none(text: str) -> None:
    assert declared(text, set(FILES), None, "here") is None
    with pytest.raises(InputError, match="has no configuration 'x'; it has none"):
        declared(text, set(FILES), "x", "here")


def test_a_folder_stands_for_all_that_is_in_it() -> None:
    found = understood(Case(one([split("train", "images/train"), split("test", "images/test/")])))
    assert found.files["train"] == tuple(name for name in FILES if name.startswith("images/train/"))
    assert found.files["test"] == ("images/test/cat/0.png",)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_ends_and_a_mark_of_the_byte_order_do_not_matter(ending: str) -> None:
    text = "\ufeff" + card(one("data/train-*")).replace("\n", ending)
    found = declared(text, set(FILES), None, "here")
    assert found is not None
    assert len(found.files["train"]) == 2


PARTS = st.sampled_from(["a", "b", "ab", ".a", "__a", "a.parquet", "train-1.parquet", "train-2.parquet"])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(
    st.sampled_from(["*", "**", "a", "a*", "?b", "[ab]*", "[!a]*", ".*", "__*", "train-*", "*.parquet", "*a*"]),
    min_size=1,
    max_size=4,
).map("/".join)


@given(files=st.sets(PATHS, min_size=1, max_size=8), pattern=PATTERNS)
@settings(max_examples=150, deadline=None)
def test_any_pattern_means_what_it_means_to_load_dataset(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], pattern: str
) -> None:
    from datasets.data_files import resolve_pattern

    files = {name for name in files if not any(other.startswith(f"{name}/") for other in files)}
    folder = plant(tmp_path_factory.mktemp("tree"), tuple(files))
    try:
        theirs = {Path(name).relative_to(folder).as_posix() for name in resolve_pattern(pattern, str(folder))}
    except FileNotFoundError:
        theirs = set()
    try:
        found = declared(card(one(pattern)), files, None, "here")
        ours = set(found.files["train"]) if found is not None else set()
    except InputError:
        ours = set()
    if "*" in pattern or "?" in pattern:
        assert ours == theirs
    else:
        assert ours >= theirs, "a folder is refused there, and here all that is in it"
