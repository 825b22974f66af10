"""The pipeline's stages: each folder is one command, one DVC stage and one Airflow task."""
