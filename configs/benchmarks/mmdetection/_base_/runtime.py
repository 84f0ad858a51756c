# mmdet's runtime with this plugin and its checks before a run starts.
_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(
    imports=['mmunimoco', 'mmunimoco.safe_checkpoints'],
    allow_failed_imports=False,
)
custom_hooks = [
    dict(type='NumClassCheckHook'),
    # Checks checkpoints, class names and normalisation.
    dict(type='mmpretrain.PreflightHook'),
]

default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
