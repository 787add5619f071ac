"""Options that every method has, each a method around another one."""
