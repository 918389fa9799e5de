"""Where things come from and go to besides this machine's disk: the Hub, and URLs."""
