# CIFAR-10 for a classifier, trained with random crops and flips.
# Downloaded to data/cifar10/ if absent; or `export CIFAR10_ROOT=...`.

data_preprocessor = dict(
    num_classes=10,
    # mmpretrain's CIFAR data sets give RGB images, so nothing is reversed.
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False,
)

train_dataloader = dict(
    batch_size=512,  # per GPU
    num_workers=8,  # per GPU
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CIFAR10',
        data_root='{{$CIFAR10_ROOT:data/cifar10/}}',
        split='train',
        pipeline=[
            dict(
                type='RandomResizedCrop',
                scale=32,
                crop_ratio_range=(0.2, 1.0),
                backend='pillow',
            ),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackInputs'),
        ],
    ),
)
val_dataloader = dict(
    train_dataloader,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        train_dataloader['dataset'],
        split='test',
        pipeline=[dict(type='PackInputs')],
    ),
)
test_dataloader = val_dataloader

val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
