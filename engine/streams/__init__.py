"""Streams of batches: one at a time, many on one network, and their checkpoints."""
