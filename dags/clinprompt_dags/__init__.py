"""What the DAG files share. Nothing here imports the pipeline: tasks run in the components' own environment."""
