"""Images and annotations: COCO files and other formats, drawn digits, remote folders, the cache, augmentation, batches.

Imports the configuration. `python -m digits_core.data` checks, draws, previews and converts data sets.
"""
