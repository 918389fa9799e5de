"""Publishing a dataset on the Hub: uploaded once, visible as a whole, tagged by version.

Everything goes up before the one commit that makes it visible, and files of an older version go in the same commit.
What the Hub already has is recognised by its digests, so that the same command continues or does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.shown import counted
from ule_datasets.compute.executor import available_cpus
from ule_datasets.dataset.manifest import FILE_NAME as MANIFEST
from ule_datasets.packaging.publication import CARD, MAIN, Plan, PlannedFile, damaged
from ule_datasets.places.answers import NOT_UNDERSTOOD, not_understood
from ule_datasets.places.hub import check_online, first_line, http_error, patiently, readable_errors, status_of

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

KEPT = (".gitattributes",)
"""Files of a repository that are the Hub's own."""
Result = TypeVar("Result")


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


def publish(plan: Plan, reporter: Reporter) -> Publication:
    """Bring a repository to the state that the plan says; again: nothing happens.

    Raises:
        InputError: no token or no right, a repository with other content, a version that was published with
            other content, or no answer for minutes.
    """
    check_online("publish")
    repository = _Repository(plan, reporter)
    with readable_errors(plan.repo_id, plan.branch, doing="publish"):
        repository.check_account()
    with readable_errors(plan.repo_id, plan.branch, doing="publish"), repository.refusals():
        repository.check_card()
        repository.open()
        state = repository.state()
        if not repository.is_published(state):
            state = repository.bring_up(state)
        if plan.tag is not None and plan.tag not in state.tags:
            repository.tag(plan.tag, state.head)
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


@dataclass(frozen=True, slots=True)
class _AccessToken:
    role: str | None = None


@dataclass(frozen=True, slots=True)
class _Auth:
    accessToken: _AccessToken = _AccessToken()  # noqa: N815 (the Hub's word)


@dataclass(frozen=True, slots=True)
class _Organisation:
    name: str


@dataclass(frozen=True, slots=True)
class _Account:
    """What the Hub says to whoami."""

    name: str
    orgs: tuple[_Organisation, ...] = ()
    auth: _Auth = _Auth()


class _Repository:
    """Where the plan's files go, on the Hub; every request is patient."""

    def __init__(self, plan: Plan, reporter: Reporter) -> None:
        from huggingface_hub import HfApi

        self.plan, self.reporter = plan, reporter
        self.api, self.id = HfApi(), plan.repo_id

    def _patiently(self, what: str, action: Callable[[], Result]) -> Result:
        return patiently(action, what=what, reporter=self.reporter)

    def _ask(self, what: str, request: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """Send a request about this repository."""
        return self._patiently(what, lambda: request(self.id, *arguments, repo_type="dataset", **options))

    def check_account(self) -> None:
        """There is a token, the Hub knows it, and it may write."""
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

        try:
            answer = self._patiently("asking who you are", lambda: self.api.whoami(token=True))
        except LocalTokenNotFoundError as error:
            raise InputError("publishing needs a token: run 'hf auth login', or set HF_TOKEN") from error
        except HfHubHTTPError as error:
            unknown = "the Hub does not know this token: run 'hf auth login', or set another HF_TOKEN"
            refused = status_of(error) == 401
            raise InputError(unknown if refused else f"the Hub answers {first_line(error)}") from error
        except InputError:
            raise
        except NOT_UNDERSTOOD as error:
            raise not_understood(error, "cannot publish") from error
        account = records.convert(_Account, answer, "what the Hub says of your account")
        if account.auth.accessToken.role == "read":
            raise InputError("this token may only read: make one with write access")
        owner, name = self.id.split("/")
        mine = [account.name, *(organisation.name for organisation in account.orgs)]
        if owner not in mine:
            raise InputError(
                f"{account.name} does not belong to {owner}: publish as --repo-id {account.name}/{name}, "
                f"or one of {', '.join(mine)}"
            )

    def check_card(self) -> None:
        """Let the Hub judge the card's front matter before anything is uploaded."""
        from huggingface_hub import RepoCard

        readme = next(file for file in self.plan.files if file.path == CARD)
        card = RepoCard(readme.read().decode(), ignore_metadata_errors=True)
        try:
            self._patiently("checking the card", lambda: card.validate(repo_type="dataset"))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"the Hub refuses the card: {' '.join(str(error).split())}") from error

    def open(self) -> None:
        """Create the repository or the branch where they are not there."""
        api, branch = self.api, self.plan.branch
        if not self._ask(f"opening {self.id}", api.repo_exists):
            self._ask(f"creating {self.id}", api.create_repo, private=self.plan.private, exist_ok=True)
        if branch != MAIN:
            self._ask(f"creating the branch {branch}", api.create_branch, branch=branch, exist_ok=True)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Say it in words when the account may read, and not write."""
        try:
            yield
        except (http_error(), ConnectionError) as error:
            if status_of(error) in (401, 403):
                raise InputError(f"this token may not write to {self.id}: {first_line(error)}") from error
            raise

    def state(self) -> _State:
        """What is there now."""
        from huggingface_hub.hf_api import RepoFile

        def look() -> _State:
            refs = self.api.list_repo_refs(self.id, repo_type="dataset")
            head = next((branch.target_commit for branch in refs.branches if branch.name == self.plan.branch), None)
            if head is None:
                raise InputError(f"{self.id} has no branch {self.plan.branch!r}")
            tree = self.api.list_repo_tree(self.id, recursive=True, revision=head, repo_type="dataset")
            files = {
                entry.path: (entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
                for entry in tree
                if isinstance(entry, RepoFile)
            }
            return _State(head=head, files=files, tags={tag.name: tag.target_commit for tag in refs.tags})

        return self._patiently(f"looking at {self.id}", look)

    def is_published(self, state: _State) -> bool:
        """Whether the dataset is there, perhaps from another build of it; refused where anything else is."""
        plan, missing, extra = self.plan, state.lacks(self.plan), state.too_many(self.plan)
        if not missing and not extra:
            return True
        foreign = set(state.files) - set(KEPT) - {CARD}
        if not foreign:
            return False
        published = self._published_manifest(state.head) if MANIFEST in state.files else None
        if published is None:
            some = ", ".join(sorted(foreign)[:3])
            raise InputError(f"{self.id} holds something else ({some}); choose another --repo-id")
        if published["name"] != plan.manifest.name:
            raise InputError(f"{self.id} holds {published['name']}, not {plan.manifest.name}")
        ours = json.loads(plan.manifest.to_json())
        only_manifest = [file.path for file in missing] == [MANIFEST] and not extra
        if only_manifest and _reproducible(published) == _reproducible(ours):
            return True
        if plan.tag is not None and plan.tag in state.tags:
            raise InputError(
                f"{self.id} has had a version {plan.manifest.version} with other content "
                f"(tag {plan.tag}); a published version does not change: raise the recipe's version"
            )
        return False

    def _published_manifest(self, head: str) -> dict[str, Any] | None:
        """The manifest in the repository, as far as it can be read."""

        def fetch() -> dict[str, Any] | None:
            path = self.api.hf_hub_download(self.id, MANIFEST, repo_type="dataset", revision=head)
            try:
                content = records.read(dict[str, Any], Path(path))
            except InputError:
                return None
            return content if "name" in content and "recipe_digest" in content else None

        return self._patiently(f"reading the manifest of {self.id}", fetch)

    def bring_up(self, state: _State) -> _State:
        """Upload what is missing, then commit everything at once; looks again before a commit is repeated."""
        plan, missing, extra = self.plan, state.lacks(self.plan), state.too_many(self.plan)
        size = sum(file.size for file in missing)
        self.reporter.say(f"uploading {counted(len(missing), 'file')} ({size / 2**20:.1f} MiB) to {self.id}")
        with ThreadPoolExecutor(available_cpus()) as pool:  # hashing lets other threads run
            additions = list(pool.map(_addition, missing))
        with self.reporter.phase("upload"):
            upload = self.api.preupload_lfs_files
            self._ask("uploading", upload, additions, revision=plan.branch, free_memory=False)
        self._patiently("committing", lambda: self._commit(additions, extra))
        after = self.state()
        wrong = [file.path for file in after.lacks(plan)] + after.too_many(plan)
        if wrong:
            raise self._changed(wrong[0])
        return replace(after, uploaded=len(missing), deleted=len(extra))

    def _commit(self, additions: list[CommitOperationAdd], extra: list[str]) -> None:
        """Whatever is still to be done; files that have come meanwhile are somebody else's."""
        from huggingface_hub import CommitOperationDelete

        plan, latest = self.plan, self.state()
        strangers = sorted(set(latest.too_many(plan)) - set(extra))
        if strangers:
            raise self._changed(strangers[0])
        left = {file.path for file in latest.lacks(plan)}
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(addition for addition in additions if addition.path_in_repo in left),
            *(CommitOperationDelete(path_in_repo=path) for path in latest.too_many(plan)),
        ]
        if operations:
            self.api.create_commit(
                self.id,
                operations,
                commit_message=f"{plan.manifest.name} {plan.manifest.version}",
                repo_type="dataset",
                revision=plan.branch,
                parent_commit=latest.head,
            )

    def _changed(self, path: str) -> InputError:
        return InputError(f"{self.id} was changed by somebody else meanwhile ({path}); push again")

    def tag(self, tag: str, head: str) -> None:
        """Name a commit."""
        self._ask(f"tagging {tag}", self.api.create_tag, tag=tag, revision=head, exist_ok=True)


def _reproducible(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest without what tells only how a build went."""
    return {name: value for name, value in manifest.items() if name not in ("build", "self_sha256")}


def _addition(file: PlannedFile) -> CommitOperationAdd:
    """For the client, which computes the digest: the moment to see whether the file was changed after it was built."""
    from huggingface_hub import CommitOperationAdd

    content = file.content if isinstance(file.content, bytes) else str(file.content)
    addition = CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=content)
    if addition.upload_info.sha256.hex() != file.sha256:
        raise damaged(file)
    return addition
