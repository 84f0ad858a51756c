# ImageNet, 32 images per GPU, with the MoCo v2 augmentation (published for
# UniMoCo too), and kNN on the validation images. The CPU decodes each file
# once and cuts two crops; everything else runs on the batch, on the GPU.
#
# `export IMAGENET_ROOT=...` names the folder with train/ and val/.

data_preprocessor = dict(
    type='TwoViewAugment',  # its defaults are the published augmentation
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

train_dataloader = dict(
    batch_size=32,  # per GPU
    num_workers=8,  # per GPU
    drop_last=True,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='collate_views'),
    dataset=dict(
        type='PartialLabels',
        label_ratio=1.0,  # in [0, 1]; class-balanced and nested
        seed=0,  # which images keep their label
        dataset=dict(
            type='ImageNet',
            data_root='{{$IMAGENET_ROOT:data/imagenet/}}',
            split='train',
            pipeline=[
                dict(
                    type='LoadTwoCrops',
                    scale=224,
                    crop_ratio_range=(0.2, 1.0),
                    antialias=False,  # True: as Pillow, a fifth slower
                ),
                dict(type='PackInputs'),
            ],
        ),
    ),
)

val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=False,
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
test_dataloader = val_dataloader

val_cfg = dict(
    type='KNNValLoop',
    # The neighbours: every training image, with its label.
    bank_dataloader=dict(
        val_dataloader, dataset=dict(val_dataloader['dataset'], split='train')
    ),
    k=(20, 200),  # number of neighbours; the first gives knn/top1
    temperature=0.07,  # a neighbour's vote weighs exp(cosine / temperature)
    bank_dtype='float16',  # 5 GB for a ResNet-50, shared by the GPUs
)
test_cfg = dict(val_cfg, type='KNNTestLoop')
val_evaluator = dict(type='Accuracy', topk=(1, 5), prefix='knn')
test_evaluator = val_evaluator
