"""A page for browsers: a frozen and an adapted network beside each other, as a folder of static files."""
