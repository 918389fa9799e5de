"""The catalogue: a module per family of datasets, each a literal table of recipes without logic.

``RECIPE`` of a module is the one for one's own images.
"""

from builders import ar, bait, convolution, dc, digits, em, emaxn, imported, learnable, lsp, ops, rem, tap, uc
from ule_datasets.definition import Recipe

FAMILIES: dict[str, tuple[Recipe, ...]] = {
    "First steps": digits.RECIPES,
    "Error-minimising noise (EM) and CIFAR-10-S": em.RECIPES,
    "Robust error-minimising noise (REM)": rem.RECIPES,
    "BAIT": bait.RECIPES,
    "Unlearnable Clusters (UC)": uc.RECIPES,
    "One-Pixel Shortcut (OPS), ablations and baselines": ops.RECIPES,
    "Targeted adversarial poisoning (TAP)": tap.RECIPES,
    "Error-maximising noise (EMaxN)": emaxn.RECIPES,
    "DeepConfuse (DC)": dc.RECIPES,
    "Linearly separable perturbations (LSP, SynPer)": lsp.RECIPES,
    "Autoregressive perturbations (AR)": ar.RECIPES,
    "Class-wise convolution (CUDA)": convolution.RECIPES,
    "Made learnable again (ISS, a median)": learnable.RECIPES,
    "What others have released (--import)": imported.RECIPES,
    "Your own images": (ops.RECIPE, lsp.RECIPE, uc.RECIPE, imported.RECIPE),
}
"""In the order in which they are listed, by what their list is headed with."""

RECIPES: dict[str, Recipe] = {recipe.name: recipe for family in FAMILIES.values() for recipe in family}
"""In the order in which they are listed."""
