"""Pixels: image files and embedded images to uint8 arrays. Pillow and NumPy only."""
