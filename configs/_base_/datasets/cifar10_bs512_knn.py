# kNN on CIFAR-10: every training image votes on the test images.

# ------------------------- usually changed -------------------------
# Folder of cifar-10-batches-py, downloaded if absent; also: CIFAR10_ROOT=...
data_root = '{{$CIFAR10_ROOT:data/cifar10/}}'
batch_size = 512  # per GPU; does not change the result
num_workers = 8  # per GPU
k = (20, 200)  # neighbours that vote; the first names knn/top1
temperature = 0.07  # votes weigh exp(cosine / temperature)
# -------------------------------------------------------------------

data_preprocessor = dict(
    num_classes=10,
    # mmpretrain's CIFAR data sets give RGB images, so nothing is swapped.
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False,
)

test_pipeline = [dict(type='PackInputs')]
test_dataloader = dict(
    batch_size=batch_size,
    num_workers=num_workers,
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
test_cfg = dict(
    type='KNNTestLoop',
    k=k,
    temperature=temperature,
    bank_dataloader=dict(
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='CIFAR10',
            data_root=data_root,
            split='train',
            pipeline=test_pipeline,
        ),
    ),
)
test_evaluator = dict(type='Accuracy', topk=(1, 5), prefix='knn')

# Names of this file alone; the resolved config keeps only what counts.
del data_root, batch_size, num_workers, k, temperature
