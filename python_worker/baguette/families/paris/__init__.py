"""The Paris family: expert, router, text encoder and VAE as published; the only place that says CLIP."""
