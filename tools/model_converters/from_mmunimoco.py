"""Export the backbone of a checkpoint for other projects.

The same as ``mmunimoco export``.
"""

import sys

from mmunimoco.commands.convert import main

if __name__ == '__main__':
    sys.exit(main())
