"""The commands of the command line, one per file. They import rooms only when they run."""
