"""What people and other tools see of a search: terminal, status, TensorBoard, MLflow, Ray's metrics.

May import, of this package: cli, policy; and `search.defaults`.
"""
