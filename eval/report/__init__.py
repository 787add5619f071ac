"""Results as a page for people, and as tables for other programs."""
