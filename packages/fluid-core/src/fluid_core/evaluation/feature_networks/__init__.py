"""Fixed networks that describe pictures: for Frechet distances and for perceptual losses."""
