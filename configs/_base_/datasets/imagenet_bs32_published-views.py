# imagenet_bs32_unimoco.py with the published views: mmpretrain's MoCo v2
# pipeline, image by image on the CPU. For exact comparisons; several times
# slower.
_base_ = 'imagenet_bs32_unimoco.py'

data_preprocessor = dict(type='SelfSupDataPreprocessor')

train_dataloader = dict(
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        dataset=dict(
            pipeline=[
                dict(type='CheckedLoadImageFromFile'),
                dict(
                    type='MultiView',
                    num_views=2,
                    transforms=[
                        [
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
                                # Of BGR, the order images are read in.
                                channel_weights=(0.114, 0.587, 0.2989),
                            ),
                            dict(
                                type='GaussianBlur',
                                magnitude_range=(0.1, 2.0),
                                magnitude_std='inf',
                                prob=0.5,
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
