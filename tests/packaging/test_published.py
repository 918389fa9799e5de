"""The built ops-cifar10 as a stranger sees it: their loader, their model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.methods.test_one_pixel_shortcut import CIFAR10_PIXELS
from ule_datasets.methods.one_pixel_shortcut import CORNERS, Objective


def offline(home: Path) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_UPDATE_DOWNLOAD_COUNTS": "0"}


def test_load_dataset_alone_gives_every_row_changed_in_exactly_its_class_pixel(
    built_cifar10: Path, cifar10_folder: Path, tmp_path: Path
) -> None:
    script = Path(__file__).parents[1] / "outside" / "open_cifar10.py"
    command = [sys.executable, str(script), str(built_cifar10), str(cifar10_folder)]
    done = subprocess.run(command, env=offline(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ours"] == []
    assert found["rows"] == {"train": 50_000, "test": 10_000}
    assert found["image"]
    assert found["names"][:3] == ["airplane", "automobile", "bird"]
    assert found["keys"] == 50_000
    assert found["unmatched"] == 0
    assert found["most_changed"] == 1
    assert found["untouched"] < 500
    expected = {
        str(label): [[row, column, (255 * CORNERS[colour]).astype(np.uint8).tobytes().hex()]]
        for label, (row, column, colour) in enumerate(CIFAR10_PIXELS[Objective.MEAN_OVER_STD])
    }
    assert found["pixels"] == expected


class Shortcut(nn.Module):
    """Option A of He et al.: every second pixel, new channels zero."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.planes = planes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.planes // 4, self.planes // 4))


class Block(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = Shortcut(planes) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(out + self.shortcut(x))


class CifarResNet20(nn.Module):
    """Three stages of three blocks with 16, 32 and 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        stages = [[Block(i, p, s), Block(p, p, 1), Block(p, p, 1)] for i, p, s in widths]
        self.layer1, self.layer2, self.layer3 = (nn.Sequential(*blocks) for blocks in stages)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(out))).mean(dim=(2, 3)))


def test_a_third_party_resnet20_scores_its_published_accuracy_on_the_test_split(
    built_cifar10: Path, weights_folder: Path, tmp_path: Path
) -> None:
    code = (
        "import sys, numpy as np; from datasets import load_dataset\n"
        "test = load_dataset(sys.argv[1], split='test').with_format('numpy')\n"
        "np.savez(sys.argv[2], images=np.stack(list(test['image'])), labels=np.array(list(test['label'])))"
    )
    out = tmp_path / "test.npz"
    command = [sys.executable, "-c", code, str(built_cifar10), str(out)]
    subprocess.run(command, env=offline(tmp_path), check=True)
    arrays = np.load(out)
    model = CifarResNet20().eval()
    saved = torch.load(weights_folder / "resnet20-12fca82f.th", weights_only=True, map_location="cpu")
    model.load_state_dict({name.removeprefix("module."): value for name, value in saved["state_dict"].items()})
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    correct = 0
    with torch.inference_mode():
        for start in range(0, 10_000, 500):
            images = torch.from_numpy(arrays["images"][start : start + 500]).float() / 255
            logits = model(((images - mean) / deviation).permute(0, 3, 1, 2))
            correct += int((logits.argmax(1).numpy() == arrays["labels"][start : start + 500]).sum())
    assert correct / 100 == 91.73
