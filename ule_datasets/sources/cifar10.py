"""CIFAR-10: how to know it, whatever form it comes in."""

from ule_datasets.sources.spec import Licence, SourceSpec

CIFAR10 = SourceSpec(
    name="cifar10",
    title="CIFAR-10",
    url="https://www.cs.toronto.edu/~kriz/cifar.html",
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    digests=(
        ("train", "6a3b2c04d0a79ce272dcdacaf0bc440275db5a8cbe3717521a28fada2ea0d2ed"),
        ("test", "65a6ffe079453e514083f99356b35e02cbfd581b4951e3937fae188974b79f39"),
    ),
    num_images=(("train", 50_000), ("test", 10_000)),
    default_location="hub:uoft-cs/cifar10",
    flippable=True,
    licence=Licence(
        hub_id="unknown",
        text="CIFAR-10 was published without a licence; it is redistributed freely for research, with citation.",
        redistributable=True,
    ),
    citation="krizhevsky2009cifar",
    hub_id="uoft-cs/cifar10",
)
