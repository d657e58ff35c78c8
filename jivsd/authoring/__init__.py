"""What a plugin author imports; `from jivsd import ...` gives the same names."""
