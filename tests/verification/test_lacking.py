"""What is missing to run a claim, and that nobody's own claims may speak of what is not here."""

from __future__ import annotations

import dataclasses

import pytest

from ule_datasets.base.errors import InputError
from ule_datasets.papers.claims import Claim, Regime, all_claims
from ule_datasets.verification.lacking import lacking, refuse_lacking

DATASETS = ("cifar10", "ops-cifar10", "ops-cifar10-k2", "ops-cifar10-k3", "em-cifar10", "digits", "ops-digits")
PAPERS = all_claims()


def own(**changes: object) -> Claim:
    return dataclasses.replace(PAPERS["ops-t2-resnet18-ops"], **{"id": "mine", "readings": (), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "resnet-18"}, "claim 'mine': no model 'resnet-18'; did you mean resnet18, "),
        ({"train_dataset": "ops-cifr10"}, "claim 'mine': no dataset 'ops-cifr10'; did you mean ops-cifar10"),
        ({"strategy": "cutuot+linf-at"}, "'cutuot' is not known; did you mean cutout? a strategy is none"),
        ({"strategy": "mixup+cutmix"}, "mixup and cutmix exclude each other"),
        ({"regime": Regime.SIZE, "model": "lenet"}, "no model 'lenet'; did you mean "),
        ({"regime": Regime.COST, "train_dataset": "ops"}, "claim 'mine': no dataset 'ops'; "),
    ],
)
def test_what_is_not_here_is_refused_with_what_is_like_it(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as refused:
        refuse_lacking([own(), own(**changes)], DATASETS)
    assert message in str(refused.value)
    assert len(refused.value.args) == 1


def test_what_is_here_is_not() -> None:
    refuse_lacking([own(), own(strategy="iss"), own(strategy="l2-at-eps1+jpeg-q30"), own(variant="pad=2")], DATASETS)
    refuse_lacking([own(regime=Regime.SIZE, train_dataset="none")], DATASETS)
    refuse_lacking([own(regime=Regime.COST, model="none", strategy="none")], DATASETS)


def test_all_that_is_missing_is_told() -> None:
    assert lacking(own(), DATASETS) == ()
    missing = own(model="vgg", strategy="iss+x", variant="v", train_dataset="y")
    assert lacking(missing, DATASETS) == ("model vgg", "strategy iss+x", "variant v", "dataset y")
