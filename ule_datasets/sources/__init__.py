"""Where clean images come from: a module for each source, a module for each form, and ``reading`` for all of them."""
