"""The engine of gradient-based methods: surrogates, projected sign steps, rounds that can be interrupted.

``settings`` imports without torch, so that recipes and the command line do; everything else needs it.
"""
