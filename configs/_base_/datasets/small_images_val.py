# Validation images of the small_images_*.py beside this file.
__size = int('{{$OWN_IMAGES_SIZE:32}}')

val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    persistent_workers=False,
    pin_memory=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='CustomDataset',
        data_prefix='{{$OWN_IMAGES:data/mine}}/val',
        pipeline=[
            dict(type='CheckedLoadImageFromFile'),
            dict(type='ResizeEdge', scale=__size, edge='short'),
            dict(type='CenterCrop', crop_size=__size),
            dict(type='PackInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
