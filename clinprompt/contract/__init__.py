"""What the library, the components, the registry and the DAGs agree on. Standard library only: DAG files import it."""
