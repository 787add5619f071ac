"""Tuning of context vectors from a few labelled images."""
