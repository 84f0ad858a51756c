# 10 % of the labels: 60 images of each class, each five times an epoch, or
# one query in ten would have a label. As many steps as with all labels.
_base_ = 'unimoco_resnet18_fmnist.py'

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='RepeatLabeled',
        times=5,
        dataset=dict(
            type='PartialLabels',
            label_ratio=0.1,
            seed=0,
            dataset={{_base_.train_dataloader.dataset.dataset}},
        ),
    )
)
train_cfg = dict(max_epochs=20)
