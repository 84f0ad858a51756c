"""The test images in feature space, projected to two dimensions."""

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner, load_checkpoint
from mmpretrain.registry import MODELS
from mmpretrain.utils import register_all_modules
from sklearn.manifold import TSNE
from torch.nn.functional import normalize

from mmunimoco.evaluation.features import evaluating, extract_batch, labels_of


def extract_features(
    cfg: Config, checkpoint: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Features of the test images.

    Args:
        cfg (Config): Config of the pre-training, for model and test data.
        checkpoint (Path): Weights of the model.

    Returns:
        tuple[np.ndarray, np.ndarray]: (N, D) float32 L2-normalised backbone
        features and (N,) int64 classes.
    """
    register_all_modules()
    # As the Runner does, or images would not be normalised.
    model = MODELS.build(
        dict(cfg.model, data_preprocessor=cfg.data_preprocessor)
    )
    load_checkpoint(model, str(checkpoint), map_location='cpu')
    loader = Runner.build_dataloader(dict(cfg.test_dataloader))
    features, labels = [], []
    with evaluating(model):
        for batch in loader:
            batch_features, samples = extract_batch(model, batch)
            features.append(normalize(batch_features, dim=1))
            labels.append(labels_of(samples))
    return torch.cat(features).numpy(), torch.cat(labels).numpy()


def embed(features: np.ndarray, seed: int) -> np.ndarray:
    """Project (N, D) features to (N, 2) float32 with t-SNE."""
    tsne = TSNE(
        n_components=2,
        # 30 is the usual choice; it must stay below N.
        perplexity=min(30.0, (len(features) - 1) / 3),
        init='pca',
        learning_rate='auto',
        random_state=seed,
    )
    return tsne.fit_transform(features).astype(np.float32)
