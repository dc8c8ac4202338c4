"""Shows a search to users and other tools: terminal, status, TensorBoard, MLflow, Ray's metrics.

May import, of this package: cli, policy; and `search.defaults`.
"""
