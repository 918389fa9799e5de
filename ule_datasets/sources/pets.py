"""The Oxford-IIIT Pet dataset: cats and dogs of 37 breeds, photographs of any size."""

from ule_datasets.sources.spec import Licence, Preprocess, SourceSpec

PETS = SourceSpec(
    name="pets",
    title="the Oxford-IIIT Pet dataset",
    url="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    class_names=None,
    digests=None,
    num_images=(("train", 3_680), ("test", 3_669)),
    default_location="hub:timm/oxford-iiit-pet",
    flippable=True,
    licence=Licence(
        hub_id="cc-by-sa-4.0",
        text="The Oxford-IIIT Pet dataset is under CC BY-SA 4.0; each photograph remains its owner's.",
        redistributable=True,
    ),
    citation="parkhi2012cats",
    hub_id="timm/oxford-iiit-pet",
    preprocess=Preprocess(resize=256, crop=224),
)
"""Not pinned: decoders of JPEG differ by a grey level here and there, so digests hold for one of them only."""
