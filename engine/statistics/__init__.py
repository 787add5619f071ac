"""Statistics of features and predictions, and losses made from them."""
