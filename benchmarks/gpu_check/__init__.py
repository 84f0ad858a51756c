"""Check the project on a GPU machine, or its CPU half where there is none."""

from .check import run_check
from .part import Outcome, Part, PartResult, run_part
from .plan import plan_parts

__all__ = [
    'Outcome',
    'Part',
    'PartResult',
    'plan_parts',
    'run_check',
    'run_part',
]
