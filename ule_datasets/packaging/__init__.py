"""From a recipe's noise to a dataset folder that can be published: crafting, card, figures, Croissant, the Hub."""
