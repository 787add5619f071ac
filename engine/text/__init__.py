"""Texts of classes: tokenizer and templates."""
