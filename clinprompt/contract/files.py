"""Files of the project that more than one package reads, relative to its root."""

COMPONENT_SCHEMA = "components/component.schema.json"  # the JSON schema of a component.yaml
IMAGES_LOCK = "infra/images.lock"  # the images' references and digests
