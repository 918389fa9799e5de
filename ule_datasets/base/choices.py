"""What may be chosen on the command line, said before the tables are imported that hold it, which takes seconds.

Each of these names is a row of such a table too; ``tests/cli/test_help.py`` compares them.
"""

DEVICES = "auto|cpu|cuda[:I]"
EXECUTORS = ("local", "ray")
PRECISIONS = ("float32", "bfloat16")
"""Those that a profile may leave to the machine."""
PROFILES = ("smoke", "quick", "fast", "paper")
RANDOM_MODELS = (
    *("resnet18", "resnet18-w16", "resnet18-w8", "resnet20", "resnet56"),
    *("convnet3", "convnet3-w32", "convnet3-w16", "quicknet", "lenet5", "vgg11-neck2", "densenet121"),
    *("cvt-7-4", "cct-7-3x1"),
    *("wrn-28-1", "wrn-28-2", "wrn-28-4", "wrn-28-8", "wrn-28-10", "wrn-28-16", "wrn-28-20"),
    *("resnet18-224", "resnet50-224"),
)
"""Models that start from random weights."""
TRAINED_MODELS = (
    *("resnet18@imagenet", "resnet50@imagenet", "efficientnet-lite0@imagenet", "clip-rn50@openai"),
    *("resnet20@cifar10", "resnet56@cifar10"),
)
"""Models that start from trained weights."""
STRATEGIES = (
    *("none", "standard", "gray", "bdr", "mean3", "gaussian3", "median3", "bilateral", "jpeg", "op", "op-released"),
    *("linf-at", "l2-at-eps0.5", "ueraser", "ueraser-lite", "ueraser-max", "ueraser-jpeg"),
    *("randaugment", "randaugment-torchvision", "cutout", "mixup", "cutmix"),
)
"""One for each part of a strategy; they are joined by ``+``."""
ANALYSES = ("shuffled", "landscape", "finetune", "relabelled")
"""Those that are made where they are asked for."""
