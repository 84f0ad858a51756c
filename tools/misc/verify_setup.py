"""Check within a minute whether a pre-training config can run here.

The same as ``mmunimoco check``.
"""

import io
import sys
from contextlib import redirect_stdout

# Packages print what they lack when they are imported.
with redirect_stdout(io.StringIO()):
    from mmunimoco.__main__ import main

if __name__ == '__main__':
    sys.exit(main(['check', *sys.argv[1:]]))
