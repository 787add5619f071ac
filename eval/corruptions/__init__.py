"""Image corruptions of ImageNet-C."""
