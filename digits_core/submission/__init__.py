"""From a model folder to files: detection of images, pred.json, pred.csv, and the check of such files.

Imports all other rooms.
"""
