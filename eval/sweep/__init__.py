"""Grids of evaluations, on this machine or on a cluster."""
