"""Measurements of time and memory, and tuning."""
