"""The pipeline's library: everything that the numbered scripts share."""
