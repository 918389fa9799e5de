"""Generation methods, one module each; a recipe imports the ones it uses."""
