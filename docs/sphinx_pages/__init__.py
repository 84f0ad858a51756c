"""Pages of the documentation that follow from files, and links to files."""
