"""Checkpoints and loops from which a run resumes exactly."""
