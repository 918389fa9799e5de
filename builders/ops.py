"""One-Pixel Shortcut (OPS), its ablations and baselines: on CIFAR-10 and -100, SVHN, ImageNet, and one's own images.

Tables and appendices are those of Wu et al.; run r of ``randpix-cifar10`` is ``--seed r``.
"""

from dataclasses import replace

from ule_datasets.definition import Recipe
from ule_datasets.methods.one_pixel_shortcut import Objective, OnePixelShortcut, Upload
from ule_datasets.methods.pixel_baselines import OPSColor, OPSPosition, RandPix
from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.cifar100 import CIFAR100
from ule_datasets.sources.imagenet import IMAGENET1K, IMAGENET100
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.svhn import SVHN

OPS_CIFAR10 = Recipe(
    name="ops-cifar10",
    title="OPS CIFAR-10",
    summary="CIFAR-10 with one pixel per class overwritten in every training image (One-Pixel Shortcut).",
    source=CIFAR10,
    methods=(OnePixelShortcut(),),
    version="1.0.0",
)
OPS_IMAGENET100 = Recipe(
    name="ops-imagenet100",
    title="OPS ImageNet-100",
    summary=(
        "The first hundred classes of ImageNet, 224 x 224 pixels, with one pixel per class overwritten in every "
        "training image (One-Pixel Shortcut)."
    ),
    source=IMAGENET100,
    methods=(OnePixelShortcut(),),
    version="1.0.0",
    shard_mebibytes=256,
)

OURS = "; by the settings for CIFAR-10, which is a choice of this project."

RECIPES = (
    OPS_CIFAR10,
    *(
        replace(
            OPS_CIFAR10,
            name=f"ops-{source.name}",
            title=f"OPS {source.title}",
            summary=OPS_CIFAR10.summary.replace("CIFAR-10", source.title).removesuffix(".") + OURS,
            source=source,
        )
        for source in (CIFAR100, SVHN)
    ),
    *(
        replace(  # Table 6
            OPS_CIFAR10,
            name=f"ops-cifar10-k{count}",
            title=f"OPS CIFAR-10, {count} pixels",
            summary=f"CIFAR-10 with {count} pixels per class overwritten in every training image (One-Pixel Shortcut).",
            methods=(OnePixelShortcut(num_pixels=count),),
        )
        for count in (2, 3, 4)
    ),
    replace(
        OPS_CIFAR10,
        name="ops-var-cifar10",
        title="OPS CIFAR-10, the paper's formula",
        summary=(
            "CIFAR-10 with one pixel per class overwritten in every training image, chosen by the printed objective of "
            "One-Pixel Shortcut (mean over variance) instead of the released code's (mean over standard deviation)."
        ),
        methods=(OnePixelShortcut(objective=Objective.MEAN_OVER_VAR),),
    ),
    replace(  # appendix A, like the next one
        OPS_CIFAR10,
        name="ops-position-cifar10",
        title="OPS-Position CIFAR-10",
        summary="CIFAR-10 with the pixel of each class's One-Pixel Shortcut overwritten in a random colour per image.",
        methods=(OPSPosition(),),
    ),
    replace(
        OPS_CIFAR10,
        name="ops-color-cifar10",
        title="OPS-Color CIFAR-10",
        summary=(
            "CIFAR-10 with one pixel per image overwritten in its class's colour, where the image is farthest from it."
        ),
        methods=(OPSColor(),),
    ),
    replace(  # appendix B
        OPS_CIFAR10,
        name="randpix-cifar10",
        title="RandPix CIFAR-10",
        summary="CIFAR-10 with one pixel per class overwritten, at a random position in a random colour.",
        methods=(RandPix(),),
    ),
    *(
        replace(  # appendix C
            OPS_CIFAR10,
            name=f"ops-search{percent}pct{suffix}-cifar10",
            title=f"OPS CIFAR-10, searched on {percent} %{title}",
            summary=(
                "CIFAR-10 with one pixel per class overwritten in every training image (One-Pixel Shortcut), "
                f"searched on {percent} % of the images of each class{others}."
            ),
            methods=(OnePixelShortcut(search_fraction=percent / 100, upload=upload),),
        )
        for upload, suffix, title, others in (
            (Upload.CLEAN, "", "", ""),
            (Upload.NOISY, "-noisy", ", noisy upload", "; the other images carry uniform noise of up to 8/255"),
        )
        for percent in (1, 10)
    ),
    OPS_IMAGENET100,
    replace(
        OPS_IMAGENET100,
        name="ops-imagenet1k",
        title="OPS ImageNet-1k",
        summary=(
            "ImageNet-1k, 224 x 224 pixels, with one pixel per class overwritten in every training image (One-Pixel "
            "Shortcut)."
        ),
        source=IMAGENET1K,
    ),
)

RECIPE = Recipe(
    name="ops",
    title="One-Pixel Shortcut on my images",
    summary="Labelled images with one pixel per class overwritten in every training image (One-Pixel Shortcut).",
    source=OWN_IMAGES,
    methods=(OnePixelShortcut(),),
    version="1.0.0",
)
