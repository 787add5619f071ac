"""Outcomes, averages, tables, and the files that hold them."""
