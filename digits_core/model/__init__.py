"""Faster R-CNN: the model, its backbones and anchors, faster RoIAlign and NMS, and checkpoints.

Imports the configuration, and from `data` the annotations, to measure how well anchors cover them.
"""
