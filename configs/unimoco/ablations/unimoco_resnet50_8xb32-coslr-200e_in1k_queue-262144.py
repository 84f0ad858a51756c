# 262144 keys in the queue, not 65536.
_base_ = '../unimoco_resnet50_8xb32-coslr-200e_in1k.py'

model = dict(head=dict(queue_len=262144))
