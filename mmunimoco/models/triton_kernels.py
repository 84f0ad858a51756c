"""When Triton kernels are used, and the import of their modules."""

from functools import cache
from importlib import import_module
from types import ModuleType

import torch


def uses_kernels(option: bool | None, device: torch.device) -> bool:
    """Whether to use Triton kernels.

    Args:
        option (bool, optional): What the user has set; None to use them on
            NVIDIA GPUs that have bfloat16, if Triton 3 is installed.
        device (torch.device): Where the tensors are.
    """
    if device.type != 'cuda' or option is False:
        return False
    return option or _suits(device)


@cache
def _suits(device: torch.device) -> bool:
    try:
        _require_triton()
    except ImportError:
        return False
    # AMD's have not been tried.
    nvidia = torch.version.hip is None
    return nvidia and torch.cuda.get_device_capability(device) >= (8, 0)


def _require_triton() -> None:
    import triton

    if int(triton.__version__.partition('.')[0]) < 3:
        raise ImportError(f'it is {triton.__version__}')
    if not hasattr(torch.library, 'custom_op'):
        raise ImportError(f'torch is {torch.__version__}, older than 2.4')


def import_kernels(name: str, option: str, field: str) -> ModuleType:
    """Import a module of this package that needs Triton.

    Args:
        name (str): The module, such as ``'fused_pass'``.
        option (str): What asks for it, for the error.
        field (str): The field of the config that switches it off.

    Returns:
        ModuleType: The module.

    Raises:
        ValueError: If Triton is missing or older than 3, or torch than 2.4.
    """
    try:
        _require_triton()
        return import_module(f'.{name}', __package__)
    except ImportError as error:
        raise ValueError(
            f'{option}=True needs Triton 3, which torch from 2.4 on installs '
            f'for GPUs ({error}); set {field}=False'
        ) from error
