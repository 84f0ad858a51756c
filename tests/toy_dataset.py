"""A dataset whose annotations are given, for tests of wrappers."""

from mmpretrain.datasets import BaseDataset


class Toy(BaseDataset):
    """Annotations from a list; pipelines get them as they are."""

    def __init__(self, infos, **kwargs):
        self.infos = infos
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self):
        return [dict(info) for info in self.infos]


def toy(labels, prefix='', **kwargs):
    infos = [dict(img_path=f'{prefix}{i}.png') for i in range(len(labels))]
    for info, label in zip(infos, labels, strict=True):
        if label is not None:
            info['gt_label'] = label
    return Toy(infos, **kwargs)


def labeled(dataset):
    """Indices of the samples that have a label."""
    return [
        i
        for i in range(len(dataset))
        if 'gt_label' in dataset.get_data_info(i)
    ]
