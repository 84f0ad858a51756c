"""Options that make a training step faster or smaller, all off by default."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from inspect import signature
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.runner import Runner
from mmpretrain.registry import (
    HOOKS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIMIZERS,
)
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint

from mmunimoco.models import UniMoCoHead
from mmunimoco.models.pair_statistics import streamed_statistics
from mmunimoco.utils.checkpoint import bare_model

from .images_on_device import batch_indices_at_once, put_images_on_device

BLOCKS = ('BasicBlock', 'Bottleneck', 'TransformerEncoderLayer')
# Values of ``compile`` for a model on a GPU, and options of ``torch.compile``.
_ON_GPUS = {'gpu': {}, 'cuda-graphs': dict(mode='reduce-overhead')}
# Modes of ``torch.compile`` that record CUDA graphs.
_GRAPH_MODES = ('reduce-overhead', 'max-autotune')


@HOOKS.register_module()
class StepOptionsHook(Hook):
    """Make a training step faster or smaller; results change by rounding.

    Args:
        channels_last (bool): Keep the channels of weights, and so of
            activations, innermost in memory. On a CPU this spares oneDNN a
            conversion in each layer, on recent GPUs it suits mixed precision.
            Not for models with operators of mmcv, such as detectors: RoIAlign
            reads memory as if channels were outermost. Defaults to False.
        compile (bool | str | dict): Compile backbone and neck of query and
            key encoder by ``torch.compile``; a dict gives its options, such
            as ``mode``; 'gpu' compiles if the model is on a GPU, and
            'cuda-graphs' also replays their kernels from CUDA graphs, for
            small batches of which the host cannot launch the kernels fast
            enough. Where the Triton kernels serve, the head is compiled around
            them. Collectives are not: mmengine's ``compile`` would take the
            whole step and break it at each. Checkpoint keys do not change.
            Defaults to False.
        gradient_checkpointing (bool | Sequence[str]): Recompute the
            activations of the query encoder's blocks in the backward pass: a
            third more time for a fraction of the memory. Unlike ``with_cp``
            of mmpretrain's ResNet it does not update batch statistics twice,
            and it works for any backbone whose blocks are named here by their
            class; True means those of ResNet and ViT. Such blocks are not
            compiled. Defaults to False.
        images_on_device (bool): Put all training images on the device once,
            for datasets such as CIFAR whose images have one size and are in
            memory anyway. With ``IndexAsImage`` and ``PackInputs`` as the
            pipeline, batches carry indices and labels alone, which the
            training process takes from tensors: no worker is started.
            ``TwoViewAugment`` with ``crop`` makes the views.
            Defaults to False.

    Raises:
        ValueError: If ``gradient_checkpointing`` is a single name, or
            ``compile`` is a string other than these.
    """

    def __init__(
        self,
        channels_last: bool = False,
        compile: bool | str | dict = False,
        gradient_checkpointing: bool | Sequence[str] = False,
        images_on_device: bool = False,
    ) -> None:
        if isinstance(gradient_checkpointing, str):
            raise ValueError(
                'StepOptionsHook.gradient_checkpointing must be True or a '
                f'list of class names, got {gradient_checkpointing!r}'
            )
        if isinstance(compile, str) and compile not in _ON_GPUS:
            raise ValueError(
                "StepOptionsHook.compile must be True, False, 'gpu', "
                f"'cuda-graphs' or a dict of options, got {compile!r}"
            )
        self.channels_last = channels_last
        self.compile = compile
        self.gradient_checkpointing = gradient_checkpointing
        self.images_on_device = images_on_device
        self._uses_graphs = False

    def before_run(self, runner: Runner) -> None:
        """Change the model, before any optimizer has seen a gradient.

        Raises:
            ValueError: If an option does not suit the model.
        """
        if self.channels_last:
            use_channels_last(runner)
        model = bare_model(runner.model)
        if self.gradient_checkpointing:
            given = self.gradient_checkpointing
            checkpoint_blocks(model, BLOCKS if given is True else given)
        if isinstance(self.compile, str) and not _is_on_gpu(model):
            runner.logger.info(
                'The encoders are not compiled, as they are on a CPU.'
            )
        elif self.compile:
            options = self.compile
            if not isinstance(options, dict):
                options = _ON_GPUS.get(options, {})
            self._uses_graphs = options.get('mode') in _GRAPH_MODES
            compile_encoders(model, options)
            if isinstance(model.head, UniMoCoHead):
                compile_head(model.head, **options)

    def before_train_iter(self, runner: Runner, *_, **__) -> None:
        """Let CUDA graphs reuse the memory of the last step's results."""
        if not self._uses_graphs:
            return
        try:
            from torch.compiler import cudagraph_mark_step_begin
        except ImportError:  # torch before 2.2
            from torch._inductor import cudagraph_mark_step_begin
        cudagraph_mark_step_begin()

    def before_train(self, runner: Runner) -> None:
        """Put the training data on the device, if asked to.

        Raises:
            ValueError: If the data preprocessor is no ``TwoViewAugment``, the
                images cannot be stacked, or a label does not fit the head.
        """
        if self.images_on_device:
            put_images_on_device(runner)
            batch_indices_at_once(runner)


def use_channels_last(runner: Runner) -> None:
    """Convert the runner's model to ``torch.channels_last``."""
    for name, module in runner.model.named_modules():
        if type(module).__module__.startswith('mmcv.ops'):
            raise ValueError(
                f'{type(module).__name__} of mmcv at {name!r} gives wrong '
                'results in this memory layout. Remove channels_last=True '
                'from StepOptionsHook'
            )
    runner.model.to(memory_format=torch.channels_last)
    if isinstance(runner.model, DistributedDataParallel):
        # DDP's buckets have the layout that the weights had, and the first
        # step would permute the elements of each kernel's gradient.
        runner.model = runner.wrap_model(
            runner.cfg.get('model_wrapper_cfg'), runner.model.module
        )


def compile_encoders(model: nn.Module, options: dict) -> None:
    """Compile backbone and neck of both encoders by ``torch.compile``."""
    if not hasattr(model, 'encoder_k'):
        raise ValueError(
            'StepOptionsHook(compile=...) compiles the encoders of UniMoCo, '
            f"but the model is a {type(model).__name__}. Use mmengine's "
            '`compile=True` in the config instead'
        )
    for module in (model.backbone, model.neck, *model.encoder_k.module):
        # The method: compiling the module would rename its parameters.
        module.forward = torch.compile(module.forward, **options)


def compile_head(head: UniMoCoHead, **options: Any) -> None:
    """Compile a head around the kernel for its queue.

    Besides the kernel it is some sixty operations on a few numbers, each a
    kernel to launch. Batches that the kernel does not suit are not compiled:
    the loop over the queue would be unrolled.

    Args:
        head (UniMoCoHead): The head.
        **options: Of ``torch.compile``.
    """
    plain = head.contrast

    def stacked(*batch: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        values = plain(*batch)
        loss = values.pop('loss')
        return loss, torch.stack([*values.values()]), tuple(values)

    compiled = torch.compile(stacked, **options)
    graphs = options.get('mode') in _GRAPH_MODES
    if graphs:
        for queue in head.buffers():  # written to in place, by the graph
            torch._dynamo.mark_static_address(queue)

    def contrast(compute: Callable | None, *batch: Any) -> dict[str, Tensor]:
        if compute in (None, streamed_statistics):
            return plain(compute, *batch)
        loss, values, names = compiled(compute, *batch)
        if graphs:  # the next step overwrites what they return
            values = values.clone()
        return dict(
            loss=loss, **dict(zip(names, values.unbind(), strict=True))
        )

    head.contrast = contrast


def checkpoint_blocks(model: nn.Module, names: Sequence[str]) -> None:
    """Checkpoint the blocks of the backbone that have these class names."""
    blocks = [
        module
        for module in model.backbone.modules()
        if type(module).__name__ in names
    ]
    if not blocks:
        raise ValueError(
            f'there is none of {", ".join(names)} in the backbone, a '
            f'{type(model.backbone).__name__}. Name the classes of its blocks '
            'in gradient_checkpointing of StepOptionsHook'
        )
    for block in blocks:
        block.forward = partial(_checkpointed, block, block.forward)


@torch.compiler.disable
def _checkpointed(
    block: nn.Module, forward: Callable, *args: Any, **kwargs: Any
) -> Any:
    """A forward pass that keeps only its inputs for the backward pass."""
    return checkpoint(
        forward,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _statistics_kept(block)),
        **kwargs,
    )


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Let batch norms update copies of their running statistics."""
    norms = [x for x in block.modules() if isinstance(x, _BatchNorm)]
    kept = [dict(norm.named_buffers()) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class FusedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Build the fastest optimizer and wrapper that the device has.

    mmengine's default constructor with ``fused=True`` for the optimizer, if
    the installed torch has it fused (SGD since 2.3, without dampening; Adam
    and AdamW since 2.0) and the model is on a GPU; ``fused`` in the config
    takes precedence.
    ``AmpOptimWrapper`` becomes ``OptimWrapper`` if its ``dtype`` is
    'float32', or if the model is on a CPU, where mmengine has no mixed
    precision. Each fallback is logged. Results change by rounding.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build optimizer and wrapper for a model on its device."""
        if 'fused' not in self.optimizer_cfg:
            reason = _why_not_fused(self.optimizer_cfg, model)
            if reason is None:
                self.optimizer_cfg = {**self.optimizer_cfg, 'fused': True}
            else:
                print_log(f'The optimizer is not fused: {reason}', 'current')
        if self.optim_wrapper_cfg.get('type') == 'AmpOptimWrapper':
            self._drop_unusable_amp(model)
        wrapper = super().__call__(model)
        optimizer = wrapper.optimizer
        if isinstance(optimizer, SGD) and optimizer.defaults.get('fused'):
            optimizer.register_step_pre_hook(_MomentumFromZero())
        return wrapper

    def _drop_unusable_amp(self, model: nn.Module) -> None:
        dtype = self.optim_wrapper_cfg.get('dtype')
        if dtype != 'float32':
            if _is_on_gpu(model):
                return
            print_log('No mixed precision: the model is on a CPU', 'current')
        self.optim_wrapper_cfg = without_amp(self.optim_wrapper_cfg)


def without_amp(wrapper: Mapping) -> dict:
    """The config of an ``AmpOptimWrapper`` as one in float32."""
    own = ('dtype', 'loss_scale', 'use_fsdp')
    rest = {key: value for key, value in wrapper.items() if key not in own}
    return rest | dict(type='OptimWrapper')


def _why_not_fused(cfg: Mapping, model: nn.Module) -> str | None:
    """Return why an optimizer cannot be fused, or None if it can."""
    kind = cfg['type']
    if cfg.get('dampening'):
        return 'a first step that is skipped would spoil its momentum'
    optimizer = OPTIMIZERS.get(kind) if isinstance(kind, str) else kind
    if 'fused' not in signature(optimizer).parameters:
        return f'torch {torch.__version__} has no fused {optimizer.__name__}'
    return None if _is_on_gpu(model) else 'the model is on a CPU'


class _MomentumFromZero:
    """Makes the momentum buffers of fused SGD before its first step.

    torch makes them from memory that the first step is to fill, and keeps
    what was there if a gradient is not finite and the step is skipped.
    Without dampening the first step is the same with zeros.
    """

    def __init__(self) -> None:
        self._is_done = False

    def __call__(self, optimizer: SGD, *_: Any) -> None:
        if self._is_done:  # spares the host a look at each parameter
            return
        parameters = [
            parameter
            for group in optimizer.param_groups
            if group['momentum'] and not group['dampening']
            for parameter in group['params']
        ]
        for parameter in parameters:
            state = optimizer.state[parameter]
            missing = state.get('momentum_buffer') is None
            if parameter.grad is not None and missing:
                state['momentum_buffer'] = torch.zeros_like(parameter.grad)
        self._is_done = all(
            optimizer.state[x].get('momentum_buffer') is not None
            for x in parameters
        )


def _is_on_gpu(model: nn.Module) -> bool:
    return all(p.device.type != 'cpu' for p in model.parameters())
