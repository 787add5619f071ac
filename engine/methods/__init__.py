"""One adaptation method per file."""
