"""Labelled test images: published data sets, folders and generated corruptions."""
