"""Dense-prediction models on a ViT encoder, and loading them from every checkpoint layout."""
