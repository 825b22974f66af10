"""validate: check the images, and decide whether they are fit for training."""
