"""Victims: those who train on a dataset without leave, in ``table``; and what they do to its images, ``strategy``."""
