"""Evaluation: datasets, corruptions, streams, metrics, runs and their results."""
