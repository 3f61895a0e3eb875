"""Batch normalisation: the layer, its moving statistics, renormalisation and the presets of other frameworks."""

from nbnet.layers.batchnorm.layer import BatchNorm
from nbnet.layers.batchnorm.renorm import Renorm

__all__ = ["BatchNorm", "Renorm"]
