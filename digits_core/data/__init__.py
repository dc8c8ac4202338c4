"""Images and annotations: COCO, YOLO, Pascal VOC and SVHN files, drawn digits, remote folders, the cache, augmentation, batches.

Imports the configuration. `python -m digits_core.data` checks, draws, previews and converts data sets.
"""
