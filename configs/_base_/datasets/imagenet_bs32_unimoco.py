# ImageNet with the augmentation of MoCo v2 (published for UniMoCo too), the
# share of labels that training sees, and kNN on the validation images.

# ------------------------- usually changed -------------------------
# Folder with train/ and val/; also: export IMAGENET_ROOT=...
data_root = '{{$IMAGENET_ROOT:data/imagenet/}}'
label_ratio = 1.0  # 0 ... 1, class-balanced and nested
label_seed = 0  # which images keep their label
batch_size = 32  # per GPU
num_workers = 8  # per GPU
knn_k = (20, 200)  # neighbours that vote; the first names knn/top1
knn_temperature = 0.07  # votes weigh exp(cosine / temperature)
# -------------------------------------------------------------------

data_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

view_pipeline = [
    dict(
        type='RandomResizedCrop',
        scale=224,
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
        channel_weights=(0.114, 0.587, 0.2989),  # images are read as BGR
    ),
    dict(
        type='GaussianBlur',
        magnitude_range=(0.1, 2.0),
        magnitude_std='inf',
        prob=0.5,
    ),
    dict(type='RandomFlip', prob=0.5),
]
train_pipeline = [
    dict(type='CheckedLoadImageFromFile'),
    dict(type='MultiView', num_views=2, transforms=[view_pipeline]),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='CheckedLoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

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
            type='ImageNet',
            data_root=data_root,
            split='train',
            pipeline=train_pipeline,
        ),
    ),
)

# kNN: every training image, with its label, votes on the validation images.
bank_dataloader = dict(
    batch_size=128,
    num_workers=num_workers,
    persistent_workers=False,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageNet',
        data_root=data_root,
        split='train',
        pipeline=test_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=num_workers,
    persistent_workers=False,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageNet',
        data_root=data_root,
        split='val',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_cfg = dict(
    type='KNNValLoop',
    bank_dataloader=bank_dataloader,
    k=knn_k,
    temperature=knn_temperature,
    bank_dtype='float16',  # 5 GB for a ResNet-50, shared by the GPUs
)
test_cfg = dict(
    type='KNNTestLoop',
    bank_dataloader=bank_dataloader,
    k=knn_k,
    temperature=knn_temperature,
    bank_dtype='float16',  # 5 GB for a ResNet-50, shared by the GPUs
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
