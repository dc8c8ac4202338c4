"""Names of the files in a checkpoint folder (no imports, for those who only move them)."""

MODEL_FILE, CONFIG_FILE = "model.safetensors", "config.json"
TRAINING_FILE, STATE_FILE = "training.safetensors", "state.json"

CLASSES_FILE = "classes.json"
"""Beside a model's weights: ids and names of its categories; without it they are the digits."""

BEST_FOLDER = "best"
"""Inside a checkpoint to go on from: the model of the best epoch so far."""

THRESHOLDS_FILE, MATCHES_FILE, CONFIRM_FILE = "thresholds.parquet", "matches.parquet", "confirm.parquet"
"""Beside the model of the best epoch: its threshold sweep, its match tables on valid and on the part to confirm."""
