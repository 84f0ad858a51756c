# CIFAR-10, 512 images per GPU: the ImageNet views at 32x32 without blur
# (this project's choice), and kNN on the test images. All images are on the
# GPU (StepOptionsHook(images_on_device=True), and the same of KNNValLoop) and
# the views are made there, so nothing is done image by image.
#
# Downloaded to data/cifar10/ if absent; `export CIFAR10_ROOT=...` names
# another folder.

data_preprocessor = dict(
    type='TwoViewAugment',
    # mmpretrain's CIFAR data sets give RGB images, so nothing is reversed.
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False,
    crop=dict(scale=32, crop_ratio_range=(0.2, 1.0)),
    blur_prob=0.0,
)

train_dataloader = dict(
    batch_size=512,  # per GPU
    num_workers=8,  # per GPU; not started while images_on_device is True
    drop_last=True,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='PartialLabels',
        label_ratio=1.0,  # in [0, 1]; class-balanced and nested
        seed=0,  # which images keep their label
        dataset=dict(
            type='CIFAR10',
            data_root='{{$CIFAR10_ROOT:data/cifar10/}}',
            split='train',
            pipeline=[dict(type='IndexAsImage'), dict(type='PackInputs')],
        ),
    ),
)

val_dataloader = dict(
    # Divides the 50 000 and 10 000 images: all batches have one shape, for
    # which the backbone is compiled once.
    batch_size=500,
    num_workers=8,
    persistent_workers=False,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CIFAR10',
        data_root='{{$CIFAR10_ROOT:data/cifar10/}}',
        split='test',
        pipeline=[dict(type='PackInputs')],
    ),
)
test_dataloader = val_dataloader

val_cfg = dict(
    type='KNNValLoop',
    # The neighbours: every training image, with its label.
    bank_dataloader=dict(
        val_dataloader, dataset=dict(val_dataloader['dataset'], split='train')
    ),
    k=(20, 200),  # number of neighbours; the first gives knn/top1
    temperature=0.07,  # a neighbour's vote weighs exp(cosine / temperature)
    images_on_device=True,  # read once
)
test_cfg = dict(val_cfg, type='KNNTestLoop')
val_evaluator = dict(type='Accuracy', topk=(1, 5), prefix='knn')
test_evaluator = val_evaluator
