"""The demo: pre-train on a small data set, evaluate, draw, report."""

from pathlib import Path

# 6 000 + 2 000 images of Fashion-MNIST, read by the dataset `NpzImages`.
DATA_FILE = str(Path(__file__).parent / 'data' / 'fashion_mnist_subset.npz')
