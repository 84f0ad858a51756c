"""Imported last by the server that processes are forked from.

They need not collect garbage among all that is imported; mmengine does so for
every dataset that it builds.
"""

import gc

gc.collect()
gc.freeze()
