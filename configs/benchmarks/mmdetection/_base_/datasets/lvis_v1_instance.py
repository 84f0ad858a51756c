# LVIS v1, rare classes repeated, the shorter side between 640 and 800.
_base_ = 'mmdet::_base_/datasets/lvis_v1_instance.py'

# ------------------------- usually changed -------------------------
# Folder with COCO's train2017/ and val2017/, and LVIS's annotations/; or:
# export LVIS_ROOT=...
data_root = '{{$LVIS_ROOT:data/lvis_v1/}}'
# -------------------------------------------------------------------

train_dataloader = dict(dataset=dict(dataset=dict(data_root=data_root)))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

val_evaluator = dict(
    ann_file=data_root.rstrip('/') + '/annotations/lvis_v1_val.json'
)
test_evaluator = val_evaluator
