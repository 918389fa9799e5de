"""Publishing a dataset folder on the Hub: checked first, uploaded once, visible as a whole, tagged by version.

Everything goes up before the one commit that makes it visible, and files of an older version go in the same commit.
What the Hub already has is recognised by its digests, so that the same command continues or does nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.executor import available_cpus
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.dataset.manifest import FILE_NAME as MANIFEST
from ule_datasets.dataset.manifest import LEFT_OUT, FileRecord, Manifest
from ule_datasets.dataset.shards import file_record
from ule_datasets.packaging.card import NAMESPACE, write_card
from ule_datasets.packaging.figures import draw_figures_without_images
from ule_datasets.places.hub import first_line, http_error, patiently, readable_errors, status_of
from ule_datasets.recipe import Recipe

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

CARD = "README.md"
NAMING = (CARD, "croissant.json")
"""Files that name the repository which they stand in."""
WITHOUT_IMAGES = (PERTURBATION, "recipe.json", "craft.json", LEFT_OUT)
"""What is published as it is when images are not; card and figures are made anew without them."""
KEPT = (".gitattributes",)
"""Files of a repository that are the Hub's own."""
MAIN = "main"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishOptions:
    """Where and what to publish."""

    repo_id: str | None = None
    """``OWNER/NAME``; default: the published datasets' own organisation and the recipe's name."""
    private: bool = False
    """Only matters when the repository is created."""
    revision: str | None = None
    """A branch; default: the main one, where the version is tagged too."""
    perturbation_only: bool = False
    """Publish no image; always so where the source forbids to pass its images on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedFile:
    """A file of the dataset as it will stand in the repository."""

    path: str
    content: Path | bytes
    size: int
    sha256: str

    @classmethod
    def of(cls, path: str, content: Path | bytes) -> PlannedFile:
        """With size and digest of the content."""
        if isinstance(content, bytes):
            return cls(path=path, content=content, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        return cls(path=path, content=content, **file_record(content))

    def read(self) -> bytes:
        """The content itself."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()

    def blob_id(self) -> str:
        """What git calls a plain file with this content."""
        content = self.read()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What would go where."""

    repo_id: str
    branch: str
    private: bool
    manifest: Manifest
    files: tuple[PlannedFile, ...]
    with_images: bool

    @property
    def tag(self) -> str | None:
        """The version; only the main branch is tagged."""
        return f"v{self.manifest.version}" if self.branch == MAIN else None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def describe(self) -> str:
        """For ``--dry-run``: every file with its size."""
        what = "" if self.with_images else " (no images: perturbation, recipe, digests, card)"
        tag = f", tag {self.tag}" if self.tag else ""
        head = f"{len(self.files)} files, {self.size / 2**20:.1f} MiB, to {self.repo_id} ({self.branch}{tag}){what}:"
        return "\n".join([head, *(f"  {file.size:>12,}  {file.path}" for file in self.files)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """What a push did."""

    repo_id: str
    commit: str
    uploaded: int
    """Files that the Hub did not have in this place."""
    deleted: int
    """Files of an older version."""

    @property
    def already_there(self) -> bool:
        """Nothing was uploaded and nothing committed."""
        return not self.uploaded and not self.deleted


def plan_publication(recipe: Recipe, folder: Path, options: PublishOptions, *, catalogue: Sequence[str] = ()) -> Plan:
    """Check a complete dataset folder and say what publishing it would do; talks to nobody.

    Args:
        recipe: what the folder was built from.
        folder: a finished dataset.
        options: where to, and whether without images.
        catalogue: names that only their own datasets may have.

    Raises:
        InputError: the folder is incomplete, damaged or another dataset, or the name belongs to another one.
    """
    manifest = Manifest.read(folder)
    repo_id = options.repo_id or f"{NAMESPACE}/{manifest.name}"
    if repo_id.count("/") != 1:
        raise InputError(f"--repo-id {repo_id}: give OWNER/NAME")
    name = repo_id.split("/")[1]
    if manifest.recipe_digest != recipe.digest:
        raise InputError(f"{folder} holds {manifest.name} of another recipe; build it again with --overwrite")
    if name != manifest.name and name in catalogue:
        what = f" ({manifest.reduced})" if manifest.reduced else ""
        raise InputError(f"--repo-id {repo_id}: {manifest.name}{what} is not the dataset that is known as {name}")
    _check_complete(folder, manifest)
    with_images = recipe.source.licence.redistributable and not options.perturbation_only
    if with_images and "parquet" not in manifest.formats:
        raise InputError(f"{folder} has no Parquet shards, which load_dataset needs; build it with both formats")
    files = _shards_and_all(folder, manifest) if with_images else _without_images(recipe, folder, manifest)
    manifest, described = _described(files, manifest, repo_id)
    return Plan(
        repo_id=repo_id,
        branch=options.revision or MAIN,
        private=options.private,
        manifest=manifest,
        files=tuple(sorted(described, key=lambda file: file.path)),
        with_images=with_images,
    )


def publish(plan: Plan, reporter: Reporter) -> Publication:
    """Bring a repository to the state that the plan says; again: nothing happens.

    Raises:
        InputError: no token or no right, a repository with other content, a version that was published with
            other content, or no answer for minutes.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    _check_account(api, plan, reporter)
    _check_card(plan, reporter)
    with readable_errors(plan.repo_id, plan.branch, doing="publish"), _refusals(plan):
        _open_repository(api, plan, reporter)
        state = _State.read(api, plan, reporter)
        if not state.is_published(plan, api, reporter):
            state = _bring_up(api, plan, state, reporter)
        if plan.tag is not None and plan.tag not in state.tags:
            _tag(api, plan, state.head, reporter)
    return Publication(repo_id=plan.repo_id, commit=state.head, uploaded=state.uploaded, deleted=state.deleted)


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """What a branch of a repository holds."""

    head: str
    files: dict[str, tuple[int, str]]
    """Size and, of large files, sha256; of plain ones, git's blob id."""
    tags: dict[str, str]
    uploaded: int = 0
    deleted: int = 0

    @classmethod
    def read(cls, api: HfApi, plan: Plan, reporter: Reporter) -> _State:
        from huggingface_hub.hf_api import RepoFile

        def ask() -> _State:
            refs = api.list_repo_refs(plan.repo_id, repo_type="dataset")
            head = next((branch.target_commit for branch in refs.branches if branch.name == plan.branch), None)
            if head is None:
                raise InputError(f"{plan.repo_id} has no branch {plan.branch!r}")
            tree = api.list_repo_tree(plan.repo_id, recursive=True, revision=head, repo_type="dataset")
            files = {
                entry.path: (entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
                for entry in tree
                if isinstance(entry, RepoFile)
            }
            return cls(head=head, files=files, tags={tag.name: tag.target_commit for tag in refs.tags})

        return patiently(ask, what=f"looking at {plan.repo_id}", reporter=reporter)

    def lacks(self, plan: Plan) -> list[PlannedFile]:
        """Files of the plan that are not there as they are."""
        return [file for file in plan.files if not self._has(file)]

    def too_many(self, plan: Plan) -> list[str]:
        """Files that do not belong to the plan."""
        wanted = {file.path for file in plan.files}
        return sorted(path for path in self.files if path not in wanted and path not in KEPT)

    def _has(self, file: PlannedFile) -> bool:
        size, digest = self.files.get(file.path, (-1, ""))
        return size == file.size and digest in (file.sha256, file.blob_id() if len(digest) == 40 else "")

    def is_published(self, plan: Plan, api: HfApi, reporter: Reporter) -> bool:
        """Whether the dataset is there, perhaps from another build of it.

        Raises:
            InputError: there is something that is not an older version of the same dataset.
        """
        missing, extra = self.lacks(plan), self.too_many(plan)
        if not missing and not extra:
            return True
        foreign = set(self.files) - set(KEPT) - {CARD}
        if not foreign:
            return False
        published = _published_manifest(api, plan, self.head, reporter) if MANIFEST in self.files else None
        if published is None:
            some = ", ".join(sorted(foreign)[:3])
            raise InputError(f"{plan.repo_id} holds something else ({some}); choose another --repo-id")
        if published["name"] != plan.manifest.name:
            raise InputError(f"{plan.repo_id} holds {published['name']}, not {plan.manifest.name}")
        if [file.path for file in missing] == [MANIFEST] and not extra:
            ours = json.loads(plan.manifest.to_json())
            if _reproducible(published) == _reproducible(ours):
                return True
        if plan.tag is not None and plan.tag in self.tags:
            raise InputError(
                f"{plan.repo_id} has had a version {plan.manifest.version} with other content "
                f"(tag {plan.tag}); a published version does not change: raise the recipe's version"
            )
        return False


def _published_manifest(api: HfApi, plan: Plan, head: str, reporter: Reporter) -> dict[str, Any] | None:
    """The manifest in the repository, as far as it can be read."""

    def fetch() -> dict[str, Any] | None:
        path = api.hf_hub_download(plan.repo_id, MANIFEST, repo_type="dataset", revision=head)
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (UnicodeDecodeError, ValueError):
            return None
        return content if isinstance(content, dict) and "name" in content and "recipe_digest" in content else None

    return patiently(fetch, what=f"reading the manifest of {plan.repo_id}", reporter=reporter)


def _reproducible(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without what tells only how a build went."""
    return {name: value for name, value in manifest.items() if name not in ("build", "self_sha256")}


def _check_complete(folder: Path, manifest: Manifest) -> None:
    """Every listed file is there with its size; digests are compared when the client has computed them."""
    for record in manifest.files:
        path = folder / record.path
        if not path.is_file() or path.stat().st_size != record.size:
            raise InputError(f"the dataset is damaged: {record.path} is not what the manifest says; build it again")


def _shards_and_all(folder: Path, manifest: Manifest) -> list[PlannedFile]:
    return [
        PlannedFile(path=record.path, content=folder / record.path, size=record.size, sha256=record.sha256)
        for record in manifest.files
    ]


def _described(files: Sequence[PlannedFile], manifest: Manifest, repo_id: str) -> tuple[Manifest, list[PlannedFile]]:
    """The files with a card that names this repository, and a manifest that has their digests."""
    renamed = {
        file.path: _with_name(file, f"{NAMESPACE}/{manifest.name}", repo_id) for file in files if file.path in NAMING
    }
    records = tuple(
        FileRecord(path=record.path, size=renamed[record.path].size, sha256=renamed[record.path].sha256)
        if record.path in renamed
        else record
        for record in manifest.files
    )
    manifest = dataclasses.replace(manifest, files=records)
    others = [file for file in files if file.path not in renamed]
    return manifest, [*others, *renamed.values(), PlannedFile.of(MANIFEST, manifest.to_json().encode())]


def _with_name(file: PlannedFile, usual: str, repo_id: str) -> PlannedFile:
    content = file.read()
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise _damaged(file)
    return PlannedFile.of(file.path, content.replace(usual.encode(), repo_id.encode()))


def _without_images(recipe: Recipe, folder: Path, manifest: Manifest) -> list[PlannedFile]:
    """Nothing that holds a pixel of the source, clean or perturbed."""
    perturbation = Perturbation.load(folder / PERTURBATION)
    figures = draw_figures_without_images(perturbation, manifest.class_names)
    card = write_card(recipe, manifest, perturbation, figures, with_images=False)
    return [
        *(PlannedFile.of(name, folder / name) for name in WITHOUT_IMAGES if (folder / name).exists()),
        *(PlannedFile.of(f"figures/{figure.name}", figure.png) for figure in figures),
        PlannedFile.of(CARD, card.encode()),
    ]


def _check_account(api: HfApi, plan: Plan, reporter: Reporter) -> None:
    """There is a token, the Hub knows it, and it may write."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        account = patiently(lambda: api.whoami(token=True), what="asking who you are", reporter=reporter)
    except LocalTokenNotFoundError as error:
        raise InputError("publishing needs a token: run 'hf auth login', or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        if status_of(error) in (401, 403):
            raise InputError(
                "the Hub does not know this token: run 'hf auth login', or set another HF_TOKEN"
            ) from error
        raise InputError(f"the Hub answers {first_line(error)}") from error
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise InputError("this token may only read: make one with write access")
    owner, name = plan.repo_id.split("/")
    mine = [account["name"], *(organisation["name"] for organisation in account.get("orgs", []))]
    if owner not in mine:
        raise InputError(
            f"{account['name']} does not belong to {owner}: publish as --repo-id {account['name']}/{name}, "
            f"or one of {', '.join(mine)}"
        )


def _check_card(plan: Plan, reporter: Reporter) -> None:
    """Let the Hub judge the card's front matter before anything is uploaded."""
    from huggingface_hub import RepoCard

    readme = next(file for file in plan.files if file.path == CARD)
    card = RepoCard(readme.read().decode(), ignore_metadata_errors=True)
    try:
        patiently(lambda: card.validate(repo_type="dataset"), what="checking the card", reporter=reporter)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"the Hub refuses the card: {' '.join(str(error).split())}") from error


def _open_repository(api: HfApi, plan: Plan, reporter: Reporter) -> None:
    """Create the repository or the branch where they are not there."""
    what = f"opening {plan.repo_id}"
    if not patiently(lambda: api.repo_exists(plan.repo_id, repo_type="dataset"), what=what, reporter=reporter):
        patiently(
            lambda: api.create_repo(plan.repo_id, repo_type="dataset", private=plan.private, exist_ok=True),
            what=f"creating {plan.repo_id}",
            reporter=reporter,
        )
    if plan.branch != MAIN:
        patiently(
            lambda: api.create_branch(plan.repo_id, branch=plan.branch, repo_type="dataset", exist_ok=True),
            what=f"creating the branch {plan.branch}",
            reporter=reporter,
        )


@contextmanager
def _refusals(plan: Plan) -> Iterator[None]:
    """Say it in words when the account may read, and not write."""
    try:
        yield
    except (http_error(), ConnectionError) as error:
        if status_of(error) in (401, 403):
            raise InputError(f"this token may not write to {plan.repo_id}") from error
        raise


def _bring_up(api: HfApi, plan: Plan, state: _State, reporter: Reporter) -> _State:
    """Upload what is missing, then commit everything at once; looks again before a commit is repeated."""
    missing, extra = state.lacks(plan), state.too_many(plan)
    size = sum(file.size for file in missing)
    reporter.say(f"uploading {len(missing)} files ({size / 2**20:.1f} MiB) to {plan.repo_id}")
    with ThreadPoolExecutor(available_cpus()) as pool:  # hashing lets other threads run
        additions = list(pool.map(_addition, missing))
    with reporter.phase("upload"):
        patiently(
            lambda: api.preupload_lfs_files(
                plan.repo_id, additions, repo_type="dataset", revision=plan.branch, free_memory=False
            ),
            what="uploading",
            reporter=reporter,
        )

    def commit() -> None:
        latest = _State.read(api, plan, reporter)
        strangers = sorted(set(latest.too_many(plan)) - set(extra))
        if strangers:
            raise InputError(f"{plan.repo_id} was changed by somebody else meanwhile ({strangers[0]}); push again")
        left = {file.path for file in latest.lacks(plan)}
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            addition for addition in additions if addition.path_in_repo in left
        ]
        operations += _deletions(latest.too_many(plan))
        if operations:
            api.create_commit(
                plan.repo_id,
                operations,
                commit_message=f"{plan.manifest.name} {plan.manifest.version}",
                repo_type="dataset",
                revision=plan.branch,
                parent_commit=latest.head,
            )

    patiently(commit, what="committing", reporter=reporter)
    after = _State.read(api, plan, reporter)
    wrong = [file.path for file in after.lacks(plan)] + after.too_many(plan)
    if wrong:
        raise InputError(f"{plan.repo_id} was changed by somebody else meanwhile ({wrong[0]}); push again")
    return _State(head=after.head, files=after.files, tags=after.tags, uploaded=len(missing), deleted=len(extra))


def _addition(file: PlannedFile) -> CommitOperationAdd:
    """For the client, which computes the digest: the moment to see whether it is the manifest's.

    Raises:
        InputError: the file was changed after it was built.
    """
    from huggingface_hub import CommitOperationAdd

    content = file.content if isinstance(file.content, bytes) else str(file.content)
    addition = CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=content)
    if addition.upload_info.sha256.hex() != file.sha256:
        raise _damaged(file)
    return addition


def _damaged(file: PlannedFile) -> InputError:
    return InputError(f"the dataset is damaged: {file.path} is not what the manifest says; build it again")


def _deletions(paths: Sequence[str]) -> list[CommitOperationDelete]:
    from huggingface_hub import CommitOperationDelete

    return [CommitOperationDelete(path_in_repo=path) for path in paths]


def _tag(api: HfApi, plan: Plan, head: str, reporter: Reporter) -> None:
    tag = plan.tag
    assert tag is not None
    patiently(
        lambda: api.create_tag(plan.repo_id, tag=tag, revision=head, repo_type="dataset", exist_ok=True),
        what=f"tagging {tag}",
        reporter=reporter,
    )
