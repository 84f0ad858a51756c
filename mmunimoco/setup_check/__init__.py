"""Whether a pre-training config would run here, found out in a minute."""

from .check import verify_setup
from .findings import Finding, print_findings

__all__ = ['Finding', 'print_findings', 'verify_setup']
