"""Everything that a report says, computed once from the results for all renderers."""
