"""``etc/server.ini``, read once, checked whole, then a tree of frozen values."""

from xmpppush.config.reader import load
from xmpppush.config.sections import Config
from xmpppush.config.topology import describe

__all__ = ["Config", "describe", "load"]
