"""SVHN, the Street View House Numbers as cropped digits: how to know it, whatever form it comes in."""

from ule_datasets.sources.spec import Licence, SourceSpec

SVHN = SourceSpec(
    name="svhn",
    title="SVHN",
    url="http://ufldl.stanford.edu/housenumbers/",
    class_names=tuple(str(digit) for digit in range(10)),
    digests=None,
    num_images=(("train", 73_257), ("test", 26_032)),
    default_location="hub:ufldl-stanford/svhn:cropped_digits",
    flippable=False,
    licence=Licence(
        hub_id="other",
        text="SVHN is for non-commercial use only, says its page, which does not say that it may be passed on.",
        redistributable=False,
    ),
    citation="netzer2011svhn",
    hub_id="ufldl-stanford/svhn",
    side=32,
    sums=(
        ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    ),
)
"""Without its 531,131 extra images, which no paper here trains on."""
