"""The sources of the catalogue, by name."""

from ule_datasets.sources.cifar10 import CIFAR10
from ule_datasets.sources.cifar100 import CIFAR100
from ule_datasets.sources.digits import DIGITS
from ule_datasets.sources.imagenet import IMAGENET1K, IMAGENET100
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.pets import PETS
from ule_datasets.sources.svhn import SVHN

KNOWN = {spec.name: spec for spec in (CIFAR10, CIFAR100, SVHN, DIGITS, IMAGENET1K, IMAGENET100, PETS, OWN_IMAGES)}


def known_location(name: str) -> str | None:
    """Where the images of a source are read from unless somebody says otherwise; ``None``: somebody must say it.

    A dataset that came from elsewhere names its source; from where that is read is not for it to say.
    """
    return KNOWN[name].default_location if name in KNOWN else None
