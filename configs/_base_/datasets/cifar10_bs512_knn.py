# kNN on CIFAR-10: every training image votes on the test images.
# Downloaded to data/cifar10/ if absent; or `export CIFAR10_ROOT=...`.

data_preprocessor = dict(
    num_classes=10,
    # mmpretrain's CIFAR data sets give RGB images, so nothing is reversed.
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False,
)

test_dataloader = dict(
    batch_size=512,  # per GPU; does not change the result
    num_workers=8,
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
test_cfg = dict(
    type='KNNTestLoop',
    bank_dataloader=dict(
        test_dataloader,
        dataset=dict(test_dataloader['dataset'], split='train'),
    ),
    k=(20, 200),  # number of neighbours; the first gives knn/top1
    temperature=0.07,  # a neighbour's vote weighs exp(cosine / temperature)
)
test_evaluator = dict(type='Accuracy', topk=(1, 5), prefix='knn')
