"""Faster R-CNN: the model, its backbones and anchors, faster RoIAlign and NMS, and files of weights.

Imports the configuration, and annotations for what anchors cover.
"""
