"""em-cifar10: error-minimising noise for every image of CIFAR-10."""

from ule_datasets.methods.error_minimizing import ErrorMinimizing
from ule_datasets.recipe import Claim, LInf, Recipe
from ule_datasets.sources.cifar10 import CIFAR10

RECIPE = Recipe(
    name="em-cifar10",
    title="EM CIFAR-10",
    summary=(
        "CIFAR-10 with error-minimising noise of at most 8/255 in every training image: a noise of its own for each, "
        "made against a ResNet-18."
    ),
    source=CIFAR10,
    methods=(ErrorMinimizing(),),
    budget=(LInf(levels=8),),
    version="1.0.0",
    claims=(
        Claim(id="ops-t2-lenet5-em", table="2", model="lenet5", strategy="standard", accuracy=26.98),
        Claim(id="ops-t2-cvt-7-4-em", table="2", model="cvt-7-4", strategy="standard", accuracy=27.6),
        Claim(id="ops-t2-cct-7-3x1-em", table="2", model="cct-7-3x1", strategy="standard", accuracy=27.06),
        Claim(id="ops-t2-densenet121-em", table="2", model="densenet121", strategy="standard", accuracy=23.72),
        Claim(id="ops-t2-resnet18-em", table="2", model="resnet18", strategy="standard", accuracy=19.58),
        Claim(id="ops-t2-wrn-28-10-em", table="2", model="wrn-28-10", strategy="standard", accuracy=23.96),
        Claim(id="ops-t5-em-mixup", table="5", model="resnet18", strategy="mixup", accuracy=38.18),
        Claim(id="ops-t5-em-cutout", table="5", model="resnet18", strategy="cutout", accuracy=25.83),
        Claim(id="ops-t5-em-randaugment", table="5", model="resnet18", strategy="randaugment", accuracy=51.66),
        Claim(
            id="ops-t5-em-randaugment-cutout",
            table="5",
            model="resnet18",
            strategy="randaugment+cutout",
            accuracy=36.26,
        ),
        Claim(id="ops-t5-em-linf_at", table="5", model="resnet18", strategy="linf-at", accuracy=83.02),
        Claim(id="ops-t5-em-linf_at-mixup", table="5", model="resnet18", strategy="linf-at+mixup", accuracy=86.71),
        Claim(id="ops-t5-em-linf_at-cutout", table="5", model="resnet18", strategy="linf-at+cutout", accuracy=84.24),
        Claim(
            id="ops-t5-em-linf_at-randaugment",
            table="5",
            model="resnet18",
            strategy="linf-at+randaugment",
            accuracy=85.06,
        ),
        Claim(id="ops-td-em-l2_at_eps0.5", table="D", model="resnet18", strategy="l2-at-eps0.5", accuracy=71),
        Claim(id="ops-td-em-l2_at_eps1", table="D", model="resnet18", strategy="l2-at-eps1", accuracy=81.75),
        Claim(id="ops-td-em-l2_at_eps2", table="D", model="resnet18", strategy="l2-at-eps2", accuracy=74.51),
        Claim(
            id="le-t1-em-cifar10-vanilla", table="1", model="resnet18", strategy="standard", accuracy=21.2, paper="le"
        ),
        Claim(id="le-t1-em-cifar10-avatar", table="1", model="resnet18", strategy="avatar", accuracy=91, paper="le"),
        Claim(id="le-t1-em-cifar10-iss", table="1", model="resnet18", strategy="iss", accuracy=93, paper="le"),
        Claim(id="le-t1-em-cifar10-at", table="1", model="resnet18", strategy="linf-at", accuracy=84.8, paper="le"),
        Claim(id="le-t1-em-cifar10-aa", table="1", model="resnet18", strategy="aa", accuracy=90.8, paper="le"),
        Claim(id="le-t1-em-cifar10-le", table="1", model="resnet18", strategy="le", accuracy=93.1, paper="le"),
    ),
)
