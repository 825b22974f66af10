"""Run single DVC stages for a scheduler: each in a workspace of its own, with data in a store that all workers reach.

The store is a folder or an S3 prefix (CLINPROMPT_STORE) that holds the DVC remote, the datasets' releases and the
records of the runs. A task is one process: `python -m workspace COMMAND`.
"""
