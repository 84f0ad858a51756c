# kNN on ImageNet: every training image votes on the validation images.

# ------------------------- usually changed -------------------------
# Folder with train/ and val/; also: export IMAGENET_ROOT=...
data_root = '{{$IMAGENET_ROOT:data/imagenet/}}'
batch_size = 256  # per GPU; does not change the result
num_workers = 8  # per GPU
k = (20, 200)  # neighbours that vote; the first names knn/top1
temperature = 0.07  # votes weigh exp(cosine / temperature)
bank_dtype = 'float16'  # 5 GB for a ResNet-50, shared by the processes
# -------------------------------------------------------------------

data_preprocessor = dict(
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

test_pipeline = [
    dict(type='CheckedLoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
test_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
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
test_cfg = dict(
    type='KNNTestLoop',
    k=k,
    temperature=temperature,
    bank_dtype=bank_dtype,
    bank_dataloader=dict(
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='ImageNet',
            data_root=data_root,
            split='train',
            pipeline=test_pipeline,
        ),
    ),
)
test_evaluator = dict(type='Accuracy', topk=(1, 5), prefix='knn')

# Names of this file alone; the resolved config keeps only what counts.
del data_root, batch_size, num_workers, k, temperature, bank_dtype
