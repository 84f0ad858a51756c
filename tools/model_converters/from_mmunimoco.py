"""Export the backbone of a checkpoint for other projects.

The same as ``mmunimoco export``.
"""

import io
import sys
from contextlib import redirect_stdout

# Packages print what they lack when they are imported.
with redirect_stdout(io.StringIO()):
    from mmunimoco.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['export', *sys.argv[1:]]))
