"""The room that turns an exported graph into one that computes with integers: calibrate, write, check."""
