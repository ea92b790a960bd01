"""``etc/server.ini``, read once, checked whole, then a tree of frozen values."""

from xmpppush.config.reader import load
from xmpppush.config.sections import Config

__all__ = ["Config", "load"]
