from .unimoco import UniMoCo

__all__ = ['UniMoCo']
