"""tfleet trains Keras 3 (TensorFlow) models with parameter servers and workers.

`import tfleet` is light: TensorFlow is imported by the workers only.
"""

__version__ = "0.1.0"
