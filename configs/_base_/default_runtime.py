# Runtime shared by every pre-training config: the plugin, hooks, environment.

# `--work-dir`, `--resume`, `--amp`, `--cfg-options` of mmpretrain's
# tools/train.py change these without a new config.

custom_imports = dict(imports=['mmunimoco'], allow_failed_imports=False)
default_scope = 'mmpretrain'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # The last three epochs, and the best kNN score apart from them. By
    # iterations: by_epoch=False, interval=1000.
    checkpoint=dict(
        type='ExactCheckpointHook',
        interval=1,
        max_keep_ckpts=3,
        save_best='knn/top1',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
)

# What is measured on a batch is logged as a mean over the last 10 that had it;
# mmengine would take the last one. No kNN score, no state such as
# labeled_queue_share or lr: of these the present value counts.
log_processor = dict(
    mean_pattern=r'.*(loss|time|grad_norm|top1_(un)?labeled|'
    r'positives_per_labeled_query|(posi|nega)tive_similarity).*',
)

custom_hooks = [
    # Stops a run before it starts on a checkpoint or labels that do not fit.
    dict(type='PreflightHook'),
    # Queues of another length, or of MoCo, are carried over.
    dict(type='QueueResumeHook'),
    # Steps that are not finite are skipped; 21 in a row stop the run.
    dict(type='NonFiniteLossHook', max_skipped=20),
    # Logs feature_std, and warns when all features become the same.
    dict(type='CollapseHook'),
    # On SIGTERM: save, and exit with status 75.
    dict(type='PreemptionHook'),
    # Lists the images that SkipBrokenImages replaces after each epoch.
    dict(type='BrokenImagesHook'),
]

env_cfg = dict(
    cudnn_benchmark=True,  # every batch has the same image size
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=None, deterministic=False)
