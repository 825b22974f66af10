"""The environment variables of the project: their names, who sets them, and what they say.

Each holds a text. Who reads one checks it, and names it in the error.
"""

PREFIX = "CLINPROMPT_"

# Set by people, for every way to run the pipeline.
DATA = "CLINPROMPT_DATA"  # the folder that the cards' paths start from
PATIENT_KEY = "CLINPROMPT_PATIENT_KEY"  # the secret key of the patients' pseudonyms
PATIENT_KEY_FILE = "CLINPROMPT_PATIENT_KEY_FILE"  # a file with that key, instead of the user's own
ENDPOINT_KEY = "CLINPROMPT_ENDPOINT_KEY"  # the key of the language model's endpoint, where it needs one
JUDGE_KEY = "CLINPROMPT_JUDGE_KEY"  # the same of the endpoint that judges descriptions, which is not shown the other
UMASK = "CLINPROMPT_UMASK"  # octal, as 027: the rights that files of a run don't give; by default others get none
BACKBONES = (
    "CLINPROMPT_BACKBONES"  # a folder of backbones, by name: those that are fetched, and for models that carry none
)
IMAGE_FOLDER = (
    "CLINPROMPT_IMAGE_FOLDER"  # the folder below which served models open the paths in requests; none: no path
)
MICRO_BATCHES = "CLINPROMPT_MICRO_BATCHES"  # in how many parts a training batch is computed; also set after a GPU OOM
GATE_EXIT_CODE = "CLINPROMPT_GATE_EXIT_CODE"  # 1: a rejection ends with exit code 77, for schedulers that branch on it
SIGNING_KEY = "CLINPROMPT_SIGNING_KEY"  # a file: the key, or identity, that promotions sign with; by default they don't
VERIFICATION_KEY = "CLINPROMPT_VERIFICATION_KEY"  # a file: the public key, or identity, that models must be signed with
JOURNAL = "CLINPROMPT_JOURNAL"  # where promotions are written down, where registry.journal of params.yaml names nothing
MLFLOW_UI = "CLINPROMPT_MLFLOW_UI"  # the URL under which people see MLflow, where it is not the tracking server's

# From a scheduler to a task of `python -m workspace`, or to `python -m registry`.
TASK = "CLINPROMPT_TASK"  # what is asked, as `contract.tasks.pack` writes it
RESULT_FILE = "CLINPROMPT_RESULT_FILE"  # a file that gets the result line too, for who cannot read standard output
STORE = "CLINPROMPT_STORE"  # the store: s3://bucket/prefix or a folder
SCRATCH = "CLINPROMPT_SCRATCH"  # the folder in which workspaces are made
CACHE = "CLINPROMPT_CACHE"  # a folder for what was fetched, which the tasks of a machine share
WEIGHTS = "CLINPROMPT_WEIGHTS"  # the folder of a container that outlives it, for weights
CODE = "CLINPROMPT_CODE"  # the project whose code the tasks run; by default the one that workspace/ lies in

# From a task to the component that it runs.
AIRFLOW = "CLINPROMPT_AIRFLOW"  # a JSON object: the DAG, run, task and try that ask
RESULT = "CLINPROMPT_RESULT"  # a file that gets the component's result line too, for who runs it through DVC

# Read by the DAGs.
RUNNER = "CLINPROMPT_RUNNER"  # wins over airflow.runner in params.yaml
GPU = "CLINPROMPT_GPU"  # 1: components that can use a GPU get one
NETWORK = "CLINPROMPT_NETWORK"  # docker: the containers' network
WEIGHTS_VOLUME = "CLINPROMPT_WEIGHTS_VOLUME"  # docker: a volume or folder for weights; kubernetes: a volume claim
CACHE_VOLUME = "CLINPROMPT_CACHE_VOLUME"  # the same, for what tasks have fetched
SIGNING_VOLUME = "CLINPROMPT_SIGNING_VOLUME"  # docker: the signing key's file; kubernetes: a secret with signing.pem
VERIFICATION_VOLUME = "CLINPROMPT_VERIFICATION_VOLUME"  # the same, of verification.pem; kubernetes: a config map
PROMOTION_QUEUE = "CLINPROMPT_PROMOTION_QUEUE"  # the queue of the tasks that change the registry; by default all tasks'
DEADLINE_SECONDS = "CLINPROMPT_DEADLINE_SECONDS"  # replaces airflow.deadline_hours; 0: no alert
APPROVAL_SECONDS = "CLINPROMPT_APPROVAL_SECONDS"  # replaces airflow.approval_hours
RETRY_SECONDS = "CLINPROMPT_RETRY_SECONDS"  # the delay before a first retry
