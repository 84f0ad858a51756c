"""Check within a minute whether a pre-training config can run here.

The same as ``mmunimoco check``.
"""

import sys

from mmunimoco.commands.check import main

if __name__ == '__main__':
    sys.exit(main())
