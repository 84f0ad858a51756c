"""Where the test images lie in feature space, in two dimensions."""

import io
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
from mmunimoco.utils.atomic import write_atomic


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
    # The Runner does the same: without it the images are not normalised.
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
    """Place features in the plane so that neighbours stay neighbours (t-SNE).

    Args:
        features (np.ndarray): (N, D).
        seed (int): Of the optimisation.

    Returns:
        np.ndarray: (N, 2) float32.
    """
    # Perplexity 30 is the usual choice; it must stay below N.
    perplexity = min(30.0, (len(features) - 1) / 3)
    tsne = TSNE(
        n_components=2,
        perplexity=perplexity,
        init='pca',
        learning_rate='auto',
        random_state=seed,
    )
    return tsne.fit_transform(features).astype(np.float32)


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to an npz file, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(path, buffer.getvalue())
