"""Options of the head, and losses, that a step is tried with."""

HEADS = {
    'published': {},
    'dense': dict(streamed=False),
    'in-batch': dict(in_batch_positives=True),
    'ignore-unlabeled': dict(ignore_unlabeled_keys=True),
    'exclude-own': dict(exclude_own_keys=True),
    'multi-label': dict(multi_label=True),
    'everything': dict(
        in_batch_positives=True,
        ignore_unlabeled_keys=True,
        exclude_own_keys=True,
        positive_temperature=0.5,
    ),
    'slow-start': dict(
        label_warmup=100,
        max_positives=2,
        propagate_labels=dict(k=3, use='positive'),
        loss=dict(type='UniConLoss', own_key_weight=2.0),
    ),
    'unicon-mean': dict(
        loss=dict(type='UniConLoss', positive_reduction='mean')
    ),
    'supcon-out': dict(loss=dict(type='SupConLoss')),
    'supcon-in': dict(loss=dict(type='SupConLoss', reduction_position='in')),
    'info-nce': dict(loss=dict(type='InfoNCELoss')),
}
