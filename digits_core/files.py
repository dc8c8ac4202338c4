"""Names of the files in a checkpoint folder (no imports, for those who only move them)."""

MODEL_FILE, CONFIG_FILE = "model.safetensors", "config.json"
TRAINING_FILE, STATE_FILE = "training.safetensors", "state.json"

BEST_FOLDER = "best"
"""Inside a checkpoint to go on from: the model of the best epoch so far."""

THRESHOLDS_FILE, MATCHES_FILE, CONFIRM_FILE = "thresholds.parquet", "matches.parquet", "confirm.parquet"
"""Beside the model of the best epoch: its threshold sweep, its match tables on valid and on the part to confirm."""
