"""From candidates to scores: NMS and thresholds, matching, mAP and number accuracy, sweeps, resampling.

Imports data and configuration, and no model: it works on what a model found.
"""
