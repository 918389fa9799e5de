"""One's own images: any classes, any number of them, or no labels at all; one image size."""

from ule_datasets.sources.spec import Licence, SourceSpec

OWN_IMAGES = SourceSpec(
    name="own-images",
    title="your own images",
    url="",
    class_names=None,
    digests=None,
    num_images=None,
    default_location=None,
    flippable=True,
    licence=Licence(
        hub_id="unknown",
        text="The licence is that of the images the dataset was built from.",
        redistributable=True,
    ),
)
