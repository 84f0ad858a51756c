"""Helpers of the project that are no part of training."""
