"""In which numbers convolutions and matrix products are computed."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """Numbers of the convolutions and matrix products; parameters, sums and normalisation stay in float32."""

    FLOAT32 = "float32"
    TF32 = "tf32"
    """Float32 with a mantissa of 10 bits inside products; an NVIDIA GPU from 2020 on, elsewhere float32."""
    BFLOAT16 = "bfloat16"
    """Torch's autocast: products in bfloat16, sums and normalisation in float32."""
