"""Images and annotations: COCO files and other formats, drawn digits, remote folders, the cache, augmentation, batches.

Imports the configuration. `digit-search data` checks, draws, previews and converts data sets.
"""
