"""The Paris family: expert, router, text encoder and VAE as published; only here is CLIP named."""
