"""Reference models: one module for each architecture, the table of all, and weights that others trained."""
