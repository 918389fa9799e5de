"""What the Hub answers, checked where it arrives: before its client forms paths of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ule_datasets.base import records
from ule_datasets.base.errors import InputError
from ule_datasets.base.names import Name

NOT_UNDERSTOOD = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What the client raises on answers that are not the Hub's."""


def guard() -> None:
    """Have every answer checked from now on, in this process; before the first request, that the token can be one.

    Raises:
        InputError: the token holds what no request can carry.
    """
    from huggingface_hub import get_session, get_token

    token = get_token() or ""
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InputError(
            "the token for the Hub holds letters that no token has: set HF_TOKEN again, or run 'hf auth login'"
        )
    session = get_session()
    hooks = session.event_hooks
    if _check not in hooks["response"]:
        session.event_hooks = {**hooks, "response": [*hooks["response"], _check]}


def not_understood(error: Exception, what: str, also: str = "") -> InputError:
    """For an answer that the client could make nothing of; ``also`` is what else may be done."""
    return InputError(
        f"{what}: the Hub's answer is not understood ({type(error).__name__}: {error}); is HF_ENDPOINT right, or does "
        f"a proxy answer instead?{also}"
    )


def _check(response: Any) -> None:
    """Refuse an answer in which something that becomes part of a path cannot be a name."""
    origin = f"the answer of {response.request.url.host} to {response.request.url.path}"
    if (commit := response.headers.get("X-Repo-Commit")) is not None:
        etag = response.headers.get("X-Linked-ETag") or response.headers.get("ETag")
        names = [commit, *([] if etag is None else [etag.removeprefix("W/").strip('"')])]
    elif "/api/" in response.request.url.path and "json" in response.headers.get("Content-Type", ""):
        response.read()
        names = list(_commits(records.parse(Any, response.content, origin), origin)) if response.is_success else []
    else:
        return
    for name in names:
        try:
            Name(name)
        except InputError as error:
            raise InputError(f"{origin}: {error}") from error


def _commits(answer: Any, origin: str) -> Iterator[str]:
    """The names of commits in an answer."""
    if not isinstance(answer, dict):
        return
    for field in ("sha", "commitOid"):
        if (commit := answer.get(field)) is not None:
            yield records.convert(str, commit, f"{origin}: {field}")
    for field in ("branches", "tags", "converts", "pullRequests"):
        for ref in records.convert(list[dict[str, Any]], answer.get(field) or [], f"{origin}: {field}"):
            yield records.convert(str, ref.get("targetCommit"), f"{origin}: {field}: targetCommit")
