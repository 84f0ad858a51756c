"""The published augmentation, written anew with torchvision and PIL."""

import random
from pathlib import Path

from PIL import Image, ImageFilter
from torch.utils.data import Dataset
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def blur(image: Image.Image) -> Image.Image:
    """PIL's blur with a random sigma, as MoCo v2 published it."""
    radius = random.uniform(0.1, 2.0)
    return image.filter(ImageFilter.GaussianBlur(radius))


class PublishedViews(Dataset):
    """Two views by the published augmentation, written anew.

    Args:
        paths (list[Path]): Images; read again and again up to ``length``.
        length (int): Images an epoch.
    """

    def __init__(self, paths: list[Path], length: int) -> None:
        self.paths, self.length = paths, length
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(224, scale=(0.2, 1.0)),
                transforms.RandomApply(
                    [transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8
                ),
                transforms.RandomGrayscale(p=0.2),
                transforms.RandomApply([transforms.Lambda(blur)], p=0.5),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list:
        path = self.paths[index % len(self.paths)]
        image = Image.open(path).convert('RGB')
        return [self.transform(image), self.transform(image)]
