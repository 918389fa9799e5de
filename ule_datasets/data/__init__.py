"""Images and what is done to them: splits, pixels on disk, the codec, perturbations and how they become grey levels."""
