"""Pre-training that is disturbed again and again, and what became of it."""
