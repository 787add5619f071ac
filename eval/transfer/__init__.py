"""One prompt on many data sets, each with classes of its own."""
