"""From raw detections to scores: NMS, thresholds, fusion, matching, mAP and number accuracy, sweeps, resampling.

Imports data and configuration, but no model: it works on the detections of a model.
"""
