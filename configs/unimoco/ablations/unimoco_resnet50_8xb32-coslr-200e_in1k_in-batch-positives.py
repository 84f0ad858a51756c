# Keys of the same batch are further positives.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(head=dict(in_batch_positives=True))
