"""The contract between methods, wrappers and whoever drives them."""
