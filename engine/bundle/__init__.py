"""A model on disk: its manifest, its files and its preprocessing."""
