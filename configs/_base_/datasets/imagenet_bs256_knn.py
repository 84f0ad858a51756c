# kNN on ImageNet: every training image votes on the validation images.
# `export IMAGENET_ROOT=...` names the folder with train/ and val/.

data_preprocessor = dict(
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

test_dataloader = dict(
    batch_size=256,  # per GPU; does not change the result
    num_workers=8,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageNet',
        data_root='{{$IMAGENET_ROOT:data/imagenet/}}',
        split='val',
        pipeline=[
            dict(type='CheckedLoadImageFromFile'),
            dict(type='ResizeEdge', scale=256, edge='short', backend='pillow'),
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ],
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
    bank_dtype='float16',  # 5 GB for a ResNet-50, shared by the GPUs
)
test_evaluator = dict(type='Accuracy', topk=(1, 5), prefix='knn')
