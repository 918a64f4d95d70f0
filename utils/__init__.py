"""The pipeline's library: everything that the numbered scripts share."""

from utils.system.pod import use_persistent_hub_cache

# Here, because nothing below this package can import huggingface_hub before this line.
use_persistent_hub_cache()
