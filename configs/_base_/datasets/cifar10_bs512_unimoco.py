# CIFAR-10: the views of ImageNet at 32x32 without blur, the share of labels
# that training sees, and kNN on the test images. This project's choice.

# ------------------------- usually changed -------------------------
# Folder of cifar-10-batches-py, downloaded if absent; also: CIFAR10_ROOT=...
data_root = '{{$CIFAR10_ROOT:data/cifar10/}}'
label_ratio = 1.0  # 0 ... 1, class-balanced and nested
label_seed = 0  # which images keep their label
batch_size = 512  # per GPU
num_workers = 8  # per GPU
knn_k = (20, 200)  # neighbours that vote; the first names knn/top1
knn_temperature = 0.07  # votes weigh exp(cosine / temperature)
# -------------------------------------------------------------------

data_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    # mmpretrain's CIFAR data sets give RGB images, so nothing is swapped.
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False,
)

view_pipeline = [
    dict(
        type='RandomResizedCrop',
        scale=32,
        crop_ratio_range=(0.2, 1.0),
        backend='pillow',
    ),
    dict(
        type='RandomApply',
        transforms=[
            dict(
                type='ColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.4,
                hue=0.1,
            )
        ],
        prob=0.8,
    ),
    dict(
        type='RandomGrayscale',
        prob=0.2,
        keep_channels=True,
        channel_weights=(0.2989, 0.587, 0.114),  # RGB, unlike ImageNet
    ),
    dict(type='RandomFlip', prob=0.5),
]
train_pipeline = [
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
    drop_last=True,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='PartialLabels',
        label_ratio=label_ratio,
        seed=label_seed,
        dataset=dict(
            type='CIFAR10',
            data_root=data_root,
            split='train',
            pipeline=train_pipeline,
        ),
    ),
)

# kNN: every training image, with its label, votes on the test images.
bank_dataloader = dict(
    batch_size=512,
    num_workers=num_workers,
    persistent_workers=False,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CIFAR10',
        data_root=data_root,
        split='train',
        pipeline=test_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=512,
    num_workers=num_workers,
    persistent_workers=False,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CIFAR10',
        data_root=data_root,
        split='test',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_cfg = dict(
    type='KNNValLoop',
    bank_dataloader=bank_dataloader,
    k=knn_k,
    temperature=knn_temperature,
)
test_cfg = dict(
    type='KNNTestLoop',
    bank_dataloader=bank_dataloader,
    k=knn_k,
    temperature=knn_temperature,
)
val_evaluator = dict(type='Accuracy', topk=(1, 5), prefix='knn')
test_evaluator = val_evaluator

# Names of this file alone; the resolved config keeps only what counts.
del (
    data_root,
    label_ratio,
    label_seed,
    batch_size,
    num_workers,
    knn_k,
    knn_temperature,
    bank_dataloader,
)
