"""How fast the project is, measured side by side, and what to expect."""
