"""The device of this process: its GPU, or the CPU. All that needs it asks here, and not by Composer's get_device.

That one lets a GPU round the inputs of float32 products to TF32, 10 bits of mantissa instead of 23, each time that it
is called (https://github.com/mosaicml/composer/blob/v0.32.1/composer/devices/device_gpu.py); and by itself PyTorch lets
cuDNN do so, which computes a GRU and an LSTM.
"""

import torch
from composer.devices import Device, DeviceCPU, DeviceGPU


def device_of_process() -> Device:
    """Give the GPU of this rank, on which float32 is float32, or the CPU where PyTorch sees no GPU."""
    return DeviceGPU(allow_tf32=False) if torch.cuda.is_available() else DeviceCPU()
