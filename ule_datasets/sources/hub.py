"""Datasets on the Hugging Face Hub: the Parquet files of a repository, in the Hub's own cache."""

from __future__ import annotations

from pathlib import Path

from ule_datasets.errors import InputError

PREFIX = "hub:"


def download(where: str) -> Path:
    """Fetch ``hub:OWNER/NAME[@REVISION]`` and return the local folder.

    Files that are already in the cache are not fetched again, so an interrupted download goes on with the
    first file that it lacks; with ``HF_HUB_OFFLINE=1`` only the cache is used.

    Raises:
        InputError: no network and not in the cache, no such repository, or no Parquet files in it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The base is the HTTP library's own error; which library that is depends on the version of huggingface_hub.
    bases = (base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    unreachable: tuple[type[Exception], ...] = (LocalEntryNotFoundError, OfflineModeIsEnabled, *bases, OSError)
    repository, _, revision = where.removeprefix(PREFIX).partition("@")
    elsewhere = "or give a local copy with --source FOLDER"
    try:
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision or None,
            allow_patterns=["*.parquet", "**/*.parquet"],
        )
    except GatedRepoError as error:
        raise InputError(
            f"{repository} is gated: accept its terms on its page and log in with 'hf auth login', {elsewhere}"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(f"{repository} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"the Hub has no dataset {repository!r} that you may read; check the name, {elsewhere}"
        ) from error
    except HFValidationError as error:
        raise InputError(f"{where!r} does not name a dataset: use hub:OWNER/NAME, {elsewhere}") from error
    except unreachable as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"cannot download {repository} ({reason}); run the same command again to resume, {elsewhere}"
        ) from error
    if not any(Path(folder).rglob("*.parquet")):
        raise InputError(f"{repository} has no Parquet files; download it and use --source FOLDER")
    return Path(folder)
