# SupCon over a queue, with the queue and temperature published for it.
_base_ = '../unimoco/unimoco_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(
    head=dict(
        queue_len=8192,
        temperature=0.07,
        loss=dict(type='SupConLoss', reduction_position='out'),
    )
)
