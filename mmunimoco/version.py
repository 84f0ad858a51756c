"""Version of mmunimoco."""

__version__ = '0.1.0'
