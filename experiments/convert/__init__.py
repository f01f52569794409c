"""Public checkpoints as folders of weights: language models, pipelines of Stable Diffusion, and rewards of images."""
