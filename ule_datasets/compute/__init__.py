"""What work runs on: processes, a Ray cluster, devices, ranks, and the numbers that are computed with."""
