"""Which half precisions autocast knows on this machine's CPU."""

import pytest
import torch
from mmengine.utils import digit_version

CPU_AUTOCAST = [
    torch.bfloat16,
    pytest.param(
        torch.float16,
        marks=pytest.mark.skipif(
            digit_version(torch.__version__) < digit_version('2.3.0'),
            reason='this torch has no float16 autocast on a CPU',
        ),
    ),
]
