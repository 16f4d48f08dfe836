"""Segmenter: the model, its sizes and its decoders."""
