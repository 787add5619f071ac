"""From PyTorch to a bundle. The only room that imports torch and timm, and only inside its modules."""
