"""Optimisers without gradients, as pure functions of arrays."""
