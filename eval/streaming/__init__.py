"""Streams of labelled batches through methods."""
