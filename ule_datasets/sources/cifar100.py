"""CIFAR-100: how to know it, whatever form it comes in."""

from ule_datasets.sources.spec import Licence, SourceSpec

_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle
    bowl boy bridge bus butterfly camel can castle caterpillar cattle
    chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
    dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
    lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket
    rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
    train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

CIFAR100 = SourceSpec(
    name="cifar100",
    title="CIFAR-100",
    url="https://www.cs.toronto.edu/~kriz/cifar.html",
    class_names=tuple(_CLASSES.split()),
    digests=None,
    num_images=(("train", 50_000), ("test", 10_000)),
    default_location="hub:uoft-cs/cifar100",
    flippable=True,
    licence=Licence(
        hub_id="unknown",
        text="CIFAR-100 was published without a licence; it is redistributed freely for research, with citation.",
        redistributable=True,
    ),
    citation="krizhevsky2009cifar",
    hub_id="uoft-cs/cifar100",
    side=32,
    sums=(
        ("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
        ("train", "16019d7e3df5f24257cddd939b257f8d"),
        ("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        ("meta", "7973b15100ade9c7d40fb424638fde48"),
    ),
    aliases=(("cra", "crab"),),
)
"""Its 100 fine classes. The Hub's copy calls the crabs ``cra``."""
