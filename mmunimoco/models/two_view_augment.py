"""The MoCo v2 augmentation of a batch of two views, on the model's device."""

import math
from collections.abc import Mapping, Sequence
from types import ModuleType

import torch
from mmpretrain.models.utils import SelfSupDataPreprocessor
from mmpretrain.registry import MODELS
from torch import Tensor

from . import view_operations as ops
from .collectives import upload
from .encoded_images import decode_crops
from .triton_kernels import import_kernels, uses_kernels

_JITTER = (
    ops.adjust_brightness,
    ops.adjust_contrast,
    ops.adjust_saturation,
    ops.adjust_hue,
)
_OTHER_CHANNELS = (
    'its colour operations need RGB images: for other channels make the views '
    'in the pipeline (MultiView) and normalise them there, with '
    "model.data_preprocessor=dict(type='SelfSupDataPreprocessor')"
)
_SIGMAS = 4  # 6e-5 of a Gaussian lies beyond 4 standard deviations


@MODELS.register_module()
class TwoViewAugment(SelfSupDataPreprocessor):
    """Augment and normalise two views of each image, on the model's device.

    For pipelines that end in uint8 crops, such as :class:`LoadTwoCrops`. In
    training every view of every image has its own random parameters, in the
    published order: colour jitter in random order, gray, blur, flip; then
    both views are normalised. Intermediate values stay floating point, where
    Pillow rounds to integers. Outside training images are only normalised, as
    :class:`SelfSupDataPreprocessor` does.

    Random parameters are drawn on the CPU, from a generator seeded by torch's
    CPU generator and different on each rank, so ``torch.manual_seed``
    reproduces them on any device. The host does not wait for the device, and
    data samples stay where they are.

    Args:
        mean (Sequence[float], optional): Mean of each channel, for values in
            [0, 255]. Defaults to None, no normalisation.
        std (Sequence[float], optional): Standard deviation. Defaults to None.
        to_rgb (bool): Whether to reverse the channels, which OpenMMLab loads
            as BGR. Defaults to False.
        input_order (str, optional): 'bgr' or 'rgb', the channel order of the
            input; colour operations depend on it. Defaults to None: 'bgr'
            with ``to_rgb`` or ``bgr_to_rgb``, else 'rgb', the order of
            mmpretrain's CIFAR data sets.
        brightness (float): The factor is uniform in [1 - x, 1 + x].
            Defaults to 0.4.
        contrast (float): The same. Defaults to 0.4.
        saturation (float): The same. Defaults to 0.4.
        hue (float): The shift is uniform in [-x, x] turns, x up to 0.5.
            Defaults to 0.1.
        jitter_prob (float): Probability of colour jitter. Defaults to 0.8.
        gray_prob (float): Probability of gray. Defaults to 0.2.
        blur_prob (float): Probability of blur. Defaults to 0.5.
        blur_sigma (tuple[float]): Bounds of the blur's standard deviation,
            in pixels. Defaults to (0.1, 2.0).
        flip_prob (float): Probability of a horizontal flip. Defaults to 0.5.
        crop (dict, optional): To crop whole images of one size here instead
            of in the pipeline: ``scale``, the size of the views, and
            ``crop_ratio_range``, ``aspect_ratio_range``, ``max_attempts`` as
            in :class:`LoadTwoCrops`. Defaults to None.
        dtype (str): Of the returned views: 'float32', 'float16' or
            'bfloat16'. They are computed in float32. Defaults to 'float32'.
        fused (bool, optional): Whether to compute all but crops by four Triton
            kernels on a GPU, with the same random parameters. Defaults to
            None: if Triton 3 is installed, on NVIDIA GPUs that have bfloat16.
        bgr_to_rgb (bool): Alias of ``to_rgb``. Defaults to False.
        rgb_to_bgr (bool): Whether to reverse the channels of RGB images.
            Defaults to False.
        non_blocking (bool): Whether copies from pinned memory to the device
            are asynchronous. Defaults to True.

    Raises:
        ValueError: If an option is out of range, or Triton is missing.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        to_rgb: bool = False,
        input_order: str | None = None,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        jitter_prob: float = 0.8,
        gray_prob: float = 0.2,
        blur_prob: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        flip_prob: float = 0.5,
        crop: Mapping | None = None,
        dtype: str = 'float32',
        fused: bool | None = None,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        non_blocking: bool = True,
    ) -> None:
        for name, values in (('mean', mean), ('std', std)):
            if values is not None and len(values) not in (1, 3):
                raise ValueError(
                    f'TwoViewAugment: {name} must have 3 numbers, but has '
                    f'{len(values)}; {_OTHER_CHANNELS}'
                )
        super().__init__(
            mean=mean,
            std=std,
            to_rgb=to_rgb,
            bgr_to_rgb=bgr_to_rgb,
            rgb_to_bgr=rgb_to_bgr,
            non_blocking=non_blocking,
        )
        if input_order is None:
            input_order = 'bgr' if to_rgb or bgr_to_rgb else 'rgb'
        self.input_order = input_order
        self.jitter = (
            *(_around_one(f) for f in (brightness, contrast, saturation)),
            (-hue, hue),
        )
        self.jitter_prob, self.gray_prob = jitter_prob, gray_prob
        self.blur_prob, self.blur_sigma = blur_prob, tuple(blur_sigma)
        self.flip_prob = flip_prob
        self.crop = crop and _CropOptions(**crop)
        self.dtype = getattr(torch, dtype, None)
        self.fused = fused
        # Not a buffer: DDP would broadcast it every step.
        self.images = None
        self._check(hue, min(brightness, contrast, saturation), dtype)
        if fused:
            _import_fused_views()

    def _check(self, hue: float, least: float, dtype: str) -> None:
        names = ('jitter_prob', 'gray_prob', 'blur_prob', 'flip_prob')
        wrong = [
            f'{name} must be in [0, 1], but is {getattr(self, name)}'
            for name in names
            if not 0 <= getattr(self, name) <= 1
        ]
        if not 0 <= hue <= 0.5:
            wrong.append(f'hue must be in [0, 0.5], but is {hue}')
        if least < 0:
            wrong.append(
                'brightness, contrast and saturation must not be negative, '
                f'but one is {least}'
            )
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            wrong.append(
                'blur_sigma must be two positive numbers, the smaller one '
                f'first, but is {self.blur_sigma}'
            )
        if dtype not in ('float32', 'float16', 'bfloat16'):
            wrong.append(
                "dtype must be 'float32', 'float16' or 'bfloat16', but is "
                f'{dtype!r}'
            )
        if self.input_order not in ('bgr', 'rgb'):
            wrong.append(
                f"input_order must be 'bgr' or 'rgb', but is "
                f'{self.input_order!r}'
            )
        if wrong:
            raise ValueError('TwoViewAugment: ' + '; '.join(wrong))

    @torch.no_grad()
    def forward(self, data: dict, training: bool = False) -> dict:
        """Augment a batch in training, else normalise it.

        Args:
            data (dict): ``inputs``, two views (N, 3, H, W) uint8; with
                ``crop`` also whole images (N, 3, H, W) uint8 or, after
                :meth:`keep_images`, their indices (N,) int64; or JPEG files
                from ``collate_encoded``. And ``data_samples``, passed
                through.
            training (bool): Whether to augment. Defaults to False.

        Returns:
            dict: ``inputs``, a list of two views (N, 3, h, w) of ``dtype``
            in training, else what ``SelfSupDataPreprocessor`` returns; and
            ``data_samples``.

        Raises:
            ValueError: If the input is not of these forms.
        """
        if not training:
            return super().forward(data, training)
        generator = ops.draw_generator()
        # mmengine calls this inside the autocast of the model.
        with torch.autocast(self.device.type, enabled=False):
            views = self._two_crops(data['inputs'], generator)
            drawn = self._draw(2 * len(views[0]), generator)
            if uses_kernels(self.fused, self.device):
                views = self._augment_fused(views, drawn)
            else:
                views = self._finish(self._augment(torch.cat(views), drawn))
        return dict(
            inputs=list(views.chunk(2)), data_samples=data.get('data_samples')
        )

    def keep_images(self, images: Tensor) -> None:
        """Keep a whole data set on the device; batches then hold indices.

        Args:
            images (Tensor): (N, 3, H, W) uint8. Not saved in checkpoints.
        """
        self.images = images.to(self.device)

    def _two_crops(
        self, inputs: Tensor | Sequence[Tensor], generator: torch.Generator
    ) -> Sequence[Tensor]:
        """Return first and second views, (N, 3, h, w), on the device."""
        if isinstance(inputs, Mapping):
            return decode_crops(inputs, self.device).chunk(2)
        inputs = self.cast_data(inputs)
        if isinstance(inputs, (list, tuple)):
            if len(inputs) != 2 or inputs[0].dim() != 4:
                raise ValueError(
                    'TwoViewAugment needs two views (N, 3, H, W) of each '
                    'image; end the pipeline in LoadTwoCrops (or MultiView '
                    'with num_views=2) and PackInputs, and keep '
                    "collate_fn=dict(type='default_collate')"
                )
            _check_channels(inputs[0])
            if inputs[0].shape != inputs[1].shape:
                raise ValueError(
                    'TwoViewAugment needs two views of one size, but got '
                    f'{[tuple(view.shape) for view in inputs]}; crop both to '
                    'one scale in the pipeline'
                )
            return inputs
        if self.crop is None:
            raise ValueError(
                'TwoViewAugment got one tensor, not two views; use '
                'LoadTwoCrops in the pipeline, or let it crop whole images '
                'with crop=dict(scale=...)'
            )
        if inputs.dim() == 1:
            if self.images is None:
                raise ValueError(
                    'TwoViewAugment got indices of images but has no images; '
                    "add dict(type='StepOptionsHook', images_on_device=True) "
                    'to custom_hooks'
                )
            inputs = self.images[inputs]
        _check_channels(inputs)
        images = torch.cat([inputs, inputs])
        boxes = self.crop.draw(images.shape, generator)
        boxes = upload(boxes, self.device)
        views = ops.resized_crop(images.float(), boxes, self.crop.scale)
        return views.chunk(2)

    def _draw(
        self, count: int, generator: torch.Generator
    ) -> ops.ViewParameters:
        """Draw all parameters; their order decides what a seed repeats."""
        return ops.ViewParameters(
            flipped=ops.draw_chosen(count, self.flip_prob, generator),
            jittered=ops.draw_chosen(count, self.jitter_prob, generator),
            orders=ops.draw_orders(count, len(_JITTER), generator),
            factors=torch.stack(
                [ops.draw_uniform(count, b, generator) for b in self.jitter]
            ),
            gray=ops.draw_chosen(count, self.gray_prob, generator),
            blurred=ops.draw_chosen(count, self.blur_prob, generator),
            sigma=ops.draw_uniform(count, self.blur_sigma, generator),
        )

    def _augment_fused(
        self, views: Sequence[Tensor], drawn: ops.ViewParameters
    ) -> Tensor:
        """Do all that :meth:`_augment` and :meth:`_finish` do, by kernels."""
        kernels = _import_fused_views()
        bgr = self.input_order == 'bgr'
        return kernels.augment_views(
            views,
            drawn,
            upload(kernels.pack(drawn), self.device),
            self._radius(views[0]),
            (2 * bgr, 2 * (bgr != self._channel_conversion)),
            (self.mean, self.std) if self._enable_normalize else None,
            self.dtype,
        )

    def _augment(self, views: Tensor, drawn: ops.ViewParameters) -> Tensor:
        """Apply all but normalisation; returns (M, 3, h, w) float32, RGB."""
        if self.input_order == 'bgr':
            views = views.flip(1)
        # Flipping commutes with the rest and is cheapest on uint8.
        (rows,) = self._upload_rows([drawn.flipped])
        views = views.index_copy(0, rows, views[rows].flip(3)).float()
        self._jitter(views, drawn)
        self._blur_and_gray(views, drawn)
        return views

    def _jitter(self, views: Tensor, drawn: ops.ViewParameters) -> None:
        """Jitter colours in place, each operation where it was drawn."""
        factors, steps = upload(drawn.factors, self.device), len(_JITTER)
        due = [
            drawn.jittered & (drawn.orders[:, step] == operation)
            for step in range(steps)
            for operation in range(steps)
        ]
        for place, rows in enumerate(self._upload_rows(due)):
            operation = place % steps
            changed = _JITTER[operation](views[rows], factors[operation, rows])
            views.index_copy_(0, rows, changed)

    def _blur_and_gray(self, views: Tensor, drawn: ops.ViewParameters) -> None:
        """Convert to gray, then blur, in place."""
        sigma = upload(drawn.sigma, self.device)
        gray, blurred = self._upload_rows([drawn.gray, drawn.blurred])
        value = ops.to_gray(views[gray]).expand(-1, 3, -1, -1)
        views.index_copy_(0, gray, value)
        radius = self._radius(views)
        soft = ops.gaussian_blur(views[blurred], sigma[blurred], radius)
        views.index_copy_(0, blurred, soft)

    def _radius(self, views: Tensor) -> int:
        """Half width of the blur, less than the sides of (M, 3, h, w)."""
        radius = math.ceil(_SIGMAS * self.blur_sigma[1])
        return min(radius, *(side - 1 for side in views.shape[2:]))

    def _finish(self, views: Tensor) -> Tensor:
        """Normalise RGB views and return them in the configured order."""
        turned = self.input_order == 'bgr'
        if turned != self._channel_conversion:
            views = views.flip(1)
        if self._enable_normalize:
            views.sub_(self.mean).div_(self.std)
        return views.to(self.dtype)

    def _upload_rows(self, masks: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the indices each mask selects, uploaded in one copy."""
        rows = [mask.nonzero().flatten() for mask in masks]
        rows_on_device = upload(torch.cat(rows), self.device)
        return rows_on_device.split([len(r) for r in rows])


def _check_channels(images: Tensor) -> None:
    """Refuse images (N, C, ...) of which colour operations make no sense."""
    if images.shape[1] != 3:
        raise ValueError(
            f'TwoViewAugment got images of {images.shape[1]} channels; '
            f'{_OTHER_CHANNELS}'
        )


def _import_fused_views() -> ModuleType:
    return import_kernels(
        'fused_views', 'TwoViewAugment.fused', 'data_preprocessor.fused'
    )


class _CropOptions:
    """Options of crops on the device, as in :class:`LoadTwoCrops`."""

    def __init__(
        self,
        scale: int | Sequence[int],
        crop_ratio_range: Sequence[float] = (0.2, 1.0),
        aspect_ratio_range: Sequence[float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
    ) -> None:
        self.scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
        self.area, self.aspect = crop_ratio_range, aspect_ratio_range
        self.attempts = max_attempts

    def draw(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Draw boxes for images of ``shape`` (M, 3, H, W)."""
        return ops.draw_boxes(
            shape[0],
            tuple(shape[2:]),
            self.area,
            self.aspect,
            generator,
            self.attempts,
        )


def _around_one(change: float) -> tuple[float, float]:
    return max(0.0, 1 - change), 1 + change
