"""Import modules of Triton kernels, where there is Triton 3."""

from importlib import import_module
from types import ModuleType


def import_kernels(name: str, option: str, field: str) -> ModuleType:
    """Import a module of this package that needs Triton.

    Args:
        name (str): The module, such as ``'fused_pass'``.
        option (str): What asks for it, for the error.
        field (str): The field of the config that switches it off.

    Returns:
        ModuleType: The module.

    Raises:
        ValueError: If Triton is missing, or older than 3.
    """
    try:
        import triton

        if int(triton.__version__.partition('.')[0]) < 3:
            raise ImportError(f'it is {triton.__version__}')
        return import_module(f'.{name}', __package__)
    except ImportError as error:
        raise ValueError(
            f'{option}=True needs Triton 3, which torch from 2.4 on installs '
            f'for GPUs ({error}); set {field}=False'
        ) from error
