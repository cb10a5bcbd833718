"""The denoising network that the diffusion and the flow-matching head share, plain and prepared for fast sampling."""
