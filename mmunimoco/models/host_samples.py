"""Keep labels where the host can read them: on the CPU."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn


def keep_samples_on_host(preprocessor: nn.Module) -> None:
    """Stop a data preprocessor from copying training samples to the device.

    It would copy every label on its own, and the host could not read one
    without waiting for the device. Samples of evaluation are left to it.

    Args:
        preprocessor (nn.Module): A data preprocessor of mmengine, called with
            a dict with ``data_samples``.
    """
    preprocessor.register_forward_pre_hook(_hide, with_kwargs=True)
    preprocessor.register_forward_hook(_show)


class _HostSamples:
    """Samples in a form that ``cast_data`` of mmengine returns untouched.

    It can be read like the list it holds, but is no ``Sequence``.
    """

    def __init__(self, samples: Sequence) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: Any) -> Any:
        return self.samples[item]

    def __iter__(self) -> Iterator:
        return iter(self.samples)


def _hide(module: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
    """Before the call: put the samples of a training batch into a box."""
    call = dict(zip(('data', 'training'), args, strict=False)) | kwargs
    data = call.get('data')
    if not call.get('training') or not isinstance(data, dict):
        return None
    if not isinstance(data.get('data_samples'), Sequence):
        return None
    samples = _HostSamples(data['data_samples'])
    return (), call | dict(data=data | dict(data_samples=samples))


def _show(module: nn.Module, args: tuple, output: Any) -> Any:
    """After the call: take the samples out again."""
    samples = output.get('data_samples') if isinstance(output, dict) else None
    if isinstance(samples, _HostSamples):
        return output | dict(data_samples=samples.samples)
    return None
