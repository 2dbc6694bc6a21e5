"""What is served: data, training, evaluation and the MLflow registry."""
