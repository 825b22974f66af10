"""Files of the project that more than one package reads, relative to its root."""

COMPONENT_SCHEMA = "components/component.schema.json"  # the JSON schema of a component.yaml
PARAMS_SCHEMA = "clinprompt/contract/params.schema.json"  # the JSON schema of what methods and protocols take
IMAGES_LOCK = "infra/images.lock"  # the images' references and digests
SOURCES_LOCK = "infra/sources.lock"  # the digests of the code of each stage and method
SETTINGS_LOCK = "runs/settings.lock"  # what of the cards and of params.yaml decides results
