"""The stages that draw and report what the others found."""

from pathlib import Path

import numpy as np
from mmpretrain.datasets.categories import FASHIONMNIST_CATEGORITES

from mmunimoco.datasets.npz_images import read_npz_split
from mmunimoco.utils.atomic import write_atomic, write_json
from mmunimoco.utils.versions import collect_versions, describe_machine

from . import DATA_FILE, plots
from .embedding import embed, extract_features
from .report import html_report, markdown_report
from .results import build_summary
from .scenes import compose_scene
from .settings import (
    BACKBONES,
    PRETRAIN_CONFIGS,
    DemoSettings,
    backbone_file,
    backbone_name,
    backbone_title,
    pretrain_config,
)
from .stages import Stage
from .training import Report, read_curves
from .transfer import SHOWN_SCENES, predictions_file, save_arrays

OUTPUT_FILES = (
    *('summary.json', 'report.md', 'report.html'),
    *('curves.png', 'embedding.png'),
)
TRANSFER_FILES = ('transfer.png', 'predictions.png')
# Estimated seconds: a t-SNE, and the report.
TSNE_SECONDS, REPORT_SECONDS = 20.0, 5.0
# Raise it when the embedding is computed in another way.
EMBEDDING_VERSION = 1


def report_stages(
    settings: DemoSettings, training: list[Stage], transfer: list[Stage]
) -> list[Stage]:
    """Embed the test images with each backbone, then write the report."""
    backbones = {stage.name: stage for stage in training}
    embeddings = [
        _embedding_stage(settings, ratio, backbones[backbone_name(ratio)])
        for ratio in BACKBONES
    ]
    needs = (*training, *transfer, *embeddings)
    return [*embeddings, _report_stage(settings, needs)]


def _embedding_file(settings: DemoSettings, ratio: float | None) -> Path:
    name = f'{backbone_name(ratio)}-embedding'
    return settings.stages_dir / name / 'embedding.npz'


def _embedding_stage(
    settings: DemoSettings, ratio: float | None, backbone: Stage
) -> Stage:
    target = _embedding_file(settings, ratio)

    def run(report: Report) -> dict:
        features, labels = extract_features(
            pretrain_config(settings, 1.0), backbone_file(settings, ratio)
        )
        report(0.2, 't-SNE', True)
        places = embed(features, settings.seed)
        save_arrays(target, places=places, labels=labels)
        return {}

    return Stage(
        target.parent,
        f'Embed the test images: {backbone_title(ratio)}',
        TSNE_SECONDS,
        run,
        [EMBEDDING_VERSION, settings.seed],
        (backbone,),
        (target,),
    )


def _report_stage(settings: DemoSettings, needs: tuple[Stage, ...]) -> Stage:
    names = OUTPUT_FILES + (TRANSFER_FILES if settings.transfer else ())

    def run(report: Report) -> dict:
        summary = build_summary(
            settings,
            {stage.name: stage.result for stage in needs},
            {
                ratio: read_curves(settings.stages_dir / backbone_name(ratio))
                for ratio in PRETRAIN_CONFIGS
            },
            collect_versions(settings.transfer),
            describe_machine(),
        )
        pictures = _draw(settings, summary)
        folder = settings.work_dir
        for name, picture in pictures.items():
            write_atomic(folder / name, picture)
        write_atomic(folder / 'report.md', markdown_report(summary))
        write_atomic(folder / 'report.html', html_report(summary, pictures))
        write_json(folder / 'summary.json', summary)
        return {}

    return Stage(
        settings.stages_dir / 'report',
        'Write the report',
        REPORT_SECONDS,
        run,
        settings.seed,
        needs,
        tuple(settings.work_dir / name for name in names),
    )


def _draw(settings: DemoSettings, summary: dict) -> dict[str, bytes]:
    places = {}
    for ratio in BACKBONES:
        with np.load(_embedding_file(settings, ratio)) as arrays:
            places[ratio], labels = arrays['places'], arrays['labels']
    pictures = {
        'curves.png': plots.plot_curves(summary),
        'embedding.png': plots.plot_embedding(
            places, labels, FASHIONMNIST_CATEGORITES, summary
        ),
    }
    if settings.transfer:
        pictures['transfer.png'] = plots.plot_transfer(summary)
        pictures['predictions.png'] = _draw_predictions(settings)
    return pictures


def _draw_predictions(settings: DemoSettings) -> bytes:
    source = read_npz_split(DATA_FILE, 'test')
    count = min(SHOWN_SCENES, settings.scene_counts['val'])
    scenes = [
        compose_scene(source, 'test', index, settings.seed)
        for index in range(count)
    ]
    predictions = {}
    for ratio in BACKBONES:
        path = predictions_file(settings, 'detection', ratio)
        with np.load(path) as file:
            objects = dict(file)
        path = predictions_file(settings, 'segmentation', ratio)
        with np.load(path) as file:
            predictions[ratio] = objects, file['classes']
    return plots.plot_predictions(
        scenes, predictions, FASHIONMNIST_CATEGORITES
    )
