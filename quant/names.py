"""Names that the command line offers, in a module that loads nothing."""

CALIBRATORS = ("percentile", "average", "minmax")
