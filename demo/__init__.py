"""The demo: pre-train on a small data set, evaluate, draw, report."""

from .settings import DemoSettings
from .workflow import run_demo

__all__ = ['DemoSettings', 'run_demo']
