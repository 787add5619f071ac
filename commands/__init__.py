"""The commands of the command line, one per `*_command.py`. They import rooms only when they run."""
