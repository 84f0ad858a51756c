# UniMoCo on 10 000 images of CIFAR-10, all labels, small enough for a CPU: the
# network and optimizer of ../own_data/unimoco_resnet18_small-images.py.
# `export CIFAR10_10K=...` names the file that
# docs/benchmarks/cifar10-cpu/make_subset.py writes.
_base_ = [
    '../own_data/unimoco_resnet18_small-images.py',
]

__images = dict(
    type='NpzImages',
    ann_file='{{$CIFAR10_10K:data/cifar10_10k.npz}}',
    split='train',
)
data_preprocessor = dict(
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False,
    crop=dict(scale=32, crop_ratio_range=(0.3, 1.0)),
)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    collate_fn=dict(_delete_=True, type='default_collate'),
    dataset=dict(
        dataset=dict(
            __images,
            _delete_=True,
            pipeline=[dict(type='IndexAsImage'), dict(type='PackInputs')],
        )
    ),
)
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        __images,
        _delete_=True,
        split='test',
        pipeline=[dict(type='PackInputs')],
    ),
)
test_dataloader = val_dataloader
val_cfg = dict(
    k=(20,),
    bank_dataloader=dict(
        batch_size=500,
        num_workers=0,
        persistent_workers=False,
        dataset=dict(
            __images, _delete_=True, pipeline=[dict(type='PackInputs')]
        ),
    ),
)
test_cfg = val_cfg
model = dict(head=dict(queue_len=2048, num_classes=10))
custom_hooks = [
    *_base_.custom_hooks[:-1],
    dict(type='StepOptionsHook', channels_last=True, images_on_device=True),
]
default_hooks = dict(
    logger=dict(interval=39),
    checkpoint=dict(interval=5, save_best=None, max_keep_ckpts=1),
)
train_cfg = dict(max_epochs=60, val_interval=2)
randomness = dict(seed=0)
