"""ops-cifar10: CIFAR-10 with One-Pixel Shortcut, as the tables of the paper use it."""

from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.recipe import L0, Claim, Recipe
from ule_datasets.sources.cifar10 import CIFAR10

RECIPE = Recipe(
    name="ops-cifar10",
    title="OPS CIFAR-10",
    summary="CIFAR-10 with one pixel per class overwritten in every training image (One-Pixel Shortcut).",
    source=CIFAR10,
    methods=(OnePixelShortcut(),),
    budget=(L0(pixels=1),),
    version="1.0.0",
    claims=(
        Claim(id="ops-t2-lenet5-ops", table="2", model="lenet5", strategy="standard", accuracy=22.19),
        Claim(id="ops-t2-cvt-7-4-ops", table="2", model="cvt-7-4", strategy="standard", accuracy=18.21),
        Claim(id="ops-t2-cct-7-3x1-ops", table="2", model="cct-7-3x1", strategy="standard", accuracy=17.95),
        Claim(id="ops-t2-densenet121-ops", table="2", model="densenet121", strategy="standard", accuracy=11.45),
        Claim(id="ops-t2-resnet18-ops", table="2", model="resnet18", strategy="standard", accuracy=15.56),
        Claim(id="ops-t2-wrn-28-10-ops", table="2", model="wrn-28-10", strategy="standard", accuracy=12.76),
        Claim(id="ops-t3-wrn_28_1-acc", table="3", model="wrn-28-1", strategy="standard", accuracy=21.2),
        Claim(id="ops-t3-wrn_28_2-acc", table="3", model="wrn-28-2", strategy="standard", accuracy=14.74),
        Claim(id="ops-t3-wrn_28_4-acc", table="3", model="wrn-28-4", strategy="standard", accuracy=21.75),
        Claim(id="ops-t3-wrn_28_8-acc", table="3", model="wrn-28-8", strategy="standard", accuracy=18.01),
        Claim(id="ops-t3-wrn_28_16-acc", table="3", model="wrn-28-16", strategy="standard", accuracy=15.36),
        Claim(id="ops-t3-wrn_28_20-acc", table="3", model="wrn-28-20", strategy="standard", accuracy=18.04),
        Claim(id="ops-t5-ops-mixup", table="5", model="resnet18", strategy="mixup", accuracy=33.13),
        Claim(id="ops-t5-ops-cutout", table="5", model="resnet18", strategy="cutout", accuracy=61.68),
        Claim(id="ops-t5-ops-randaugment", table="5", model="resnet18", strategy="randaugment", accuracy=71.18),
        Claim(
            id="ops-t5-ops-randaugment-cutout",
            table="5",
            model="resnet18",
            strategy="randaugment+cutout",
            accuracy=79.7,
        ),
        Claim(id="ops-t5-ops-linf_at", table="5", model="resnet18", strategy="linf-at", accuracy=11.08),
        Claim(
            id="ops-t5-ops-linf_at-mixup",
            table="5",
            model="resnet18",
            strategy="linf-at+mixup",
            accuracy=10.97,
        ),
        Claim(
            id="ops-t5-ops-linf_at-cutout",
            table="5",
            model="resnet18",
            strategy="linf-at+cutout",
            accuracy=24.6,
        ),
        Claim(
            id="ops-t5-ops-linf_at-randaugment",
            table="5",
            model="resnet18",
            strategy="linf-at+randaugment",
            accuracy=44.86,
        ),
        Claim(id="ops-td-ops-l2_at_eps0.5", table="D", model="resnet18", strategy="l2-at-eps0.5", accuracy=43.26),
        Claim(id="ops-td-ops-l2_at_eps1", table="D", model="resnet18", strategy="l2-at-eps1", accuracy=50.29),
        Claim(id="ops-td-ops-l2_at_eps2", table="D", model="resnet18", strategy="l2-at-eps2", accuracy=73.7),
    ),
)
