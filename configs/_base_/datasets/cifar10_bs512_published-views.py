# cifar10_bs512_unimoco.py with views made image by image on the CPU by
# mmpretrain's transforms. For exact comparisons; slower.
_base_ = 'cifar10_bs512_unimoco.py'

data_preprocessor = dict(
    _delete_=True,
    type='SelfSupDataPreprocessor',
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False,
)

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            pipeline=[
                dict(
                    type='MultiView',
                    num_views=2,
                    transforms=[
                        [
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
                                # Of RGB, unlike ImageNet.
                                channel_weights=(0.2989, 0.587, 0.114),
                            ),
                            dict(type='RandomFlip', prob=0.5),
                        ]
                    ],
                ),
                dict(type='PackInputs'),
            ]
        )
    ),
)
