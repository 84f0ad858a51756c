"""Stands in for YAPF, here and in the processes that tests start.

mmengine formats the whole config each time its text is needed, a second for
every checkpoint. Without formatting it is the same Python on one line.
"""

import sys

__version__ = '0.43.0'
for _name in ('yapf.yapflib', 'yapf.yapflib.yapf_api'):
    sys.modules[_name] = sys.modules[__name__]


def FormatCode(text: str, **_) -> tuple[str, bool]:
    """Return the text as it is."""
    return text, True
