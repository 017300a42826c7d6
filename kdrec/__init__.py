"""kdrec: make recommender systems small by knowledge distillation.

Importing the package costs nothing: the heavy libraries are imported by the modules that need them.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("kdrec")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
