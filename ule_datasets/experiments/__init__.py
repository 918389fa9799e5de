"""Which models are trained on what, each run once however many claims it serves, and what comes out."""
