"""How an exploiter trains: the protocol, the augmentation and the one training loop."""
