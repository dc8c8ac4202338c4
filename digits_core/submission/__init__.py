"""Applies a model to images: detections, pred.json, pred.csv, the check of these files, and ONNX export.

Imports all other rooms.
"""
