"""Learning the context of a prompt from a few labelled images."""
