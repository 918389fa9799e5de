"""The Croissant file is accepted by the reference library, and reads the same samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ule_datasets import load


def test_the_reference_validator_accepts_it_and_reads_the_records(
    built_digits: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import mlcroissant

    dataset = mlcroissant.Dataset(str(built_digits / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert "not standard" not in caplog.text
    expected = load(built_digits, split="test")
    for index, record in zip(range(20), dataset.records("test-00000-of-00001"), strict=False):
        fields = {name.rpartition("/")[2]: value for name, value in record.items()}
        image, label = expected[index]
        assert fields["label"] == label
        assert fields["key"].decode() == expected.keys[index]
        assert np.array_equal(np.asarray(fields["image"]), np.asarray(image))
        assert fields["poisoned"] == bool(expected.poisoned[index])
