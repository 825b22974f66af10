"""What lies between DVC and a scheduler: one stage in its own workspace, its bytes in a store that all workers reach.

The store is a folder or an S3 prefix (CLINPROMPT_STORE) that holds the DVC remote, the datasets' releases and the
records of the runs. A task is one process: `python -m workspace COMMAND`.
"""
