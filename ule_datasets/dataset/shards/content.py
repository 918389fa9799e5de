"""What a shard holds, in whatever format."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, eq=False, slots=True)
class ShardContent:
    """One shard, or several that were joined, images still encoded."""

    encoded: list[bytes] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    poisoned: list[bool] = field(default_factory=list)

    def extend(self, other: ShardContent) -> None:
        """Append the samples of another shard."""
        self.encoded.extend(other.encoded)
        self.labels.extend(other.labels)
        self.keys.extend(other.keys)
        self.poisoned.extend(other.poisoned)
