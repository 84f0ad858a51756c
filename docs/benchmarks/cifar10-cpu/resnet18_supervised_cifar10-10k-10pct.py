# The same on 10 % of the labels: 1 000 images, each ten times an epoch.
_base_ = 'resnet18_supervised_cifar10-10k.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=10,
        dataset=dict(
            type='LabeledSubset',
            dataset=dict(
                type='PartialLabels',
                label_ratio=0.1,
                seed=0,
                dataset={{_base_.train_dataloader.dataset.dataset}},
            ),
        ),
    )
)
