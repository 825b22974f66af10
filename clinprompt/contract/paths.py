"""Files of a project that the library, the components and the schedulers name."""

IMAGES_LOCK = "infra/images.lock"  # the images that the components run in
SOURCES_LOCK = "infra/sources.lock"  # the digests of the code of each stage and method
SETTINGS_LOCK = "runs/settings.lock"  # what of the cards and of params.yaml decides results
