"""GPUs by name, with the figures of their makers' data sheets.

Sources, all for dense matrices (data sheets like to print twice the figure, for sparse ones): NVIDIA's data sheets and
architecture papers of H100 (SXM5 and PCIe), H200, A100, B200 (HGX), L40S, L4 and of the GeForce RTX 3090 (GA102) and
4090 (Ada); AMD's data sheet of the Instinct MI300X. GeForce figures are those with float32 accumulation, which PyTorch
uses. Memory is in powers of a thousand as sold.
"""

import attrs

from fluid_core.errors import ConfigurationError, did_you_mean, listing


@attrs.frozen(kw_only=True)
class GpuModel:
    """Peak rates and memory of one GPU."""

    title: str
    bfloat16_flops: float
    """Peak of matrix products in bfloat16, in operations a second (a multiply-add is two)."""

    tensorfloat32_flops: float
    """Peak of products of float32 matrices rounded to TensorFloat-32 (`torch.set_float32_matmul_precision("high")`)."""

    float32_flops: float
    """Peak in true float32: what PyTorch takes by default."""

    memory_bytes: float
    bandwidth: float
    """Bytes of its memory that are read or written in a second, at best."""


def _gpu(title: str, *, bfloat16: float, tf32: float, float32: float, gigabytes: float, bandwidth: float) -> GpuModel:
    """From TFLOP/s, GB and GB/s."""
    return GpuModel(
        title=title,
        bfloat16_flops=bfloat16 * 1e12,
        tensorfloat32_flops=tf32 * 1e12,
        float32_flops=float32 * 1e12,
        memory_bytes=gigabytes * 1e9,
        bandwidth=bandwidth * 1e9,
    )


GPUS = {
    "h100": _gpu("NVIDIA H100 SXM 80 GB", bfloat16=989.4, tf32=494.7, float32=66.9, gigabytes=80.0, bandwidth=3350.0),
    "h100-pcie": _gpu(
        "NVIDIA H100 PCIe 80 GB", bfloat16=756.0, tf32=378.0, float32=51.2, gigabytes=80.0, bandwidth=2000.0
    ),
    "h200": _gpu("NVIDIA H200 SXM 141 GB", bfloat16=989.4, tf32=494.7, float32=66.9, gigabytes=141.0, bandwidth=4800.0),
    "b200": _gpu("NVIDIA B200 180 GB", bfloat16=2250.0, tf32=1125.0, float32=75.0, gigabytes=180.0, bandwidth=7700.0),
    "a100": _gpu("NVIDIA A100 SXM 80 GB", bfloat16=311.8, tf32=155.9, float32=19.5, gigabytes=80.0, bandwidth=2039.0),
    "a100-40gb": _gpu(
        "NVIDIA A100 SXM 40 GB", bfloat16=311.8, tf32=155.9, float32=19.5, gigabytes=40.0, bandwidth=1555.0
    ),
    "l40s": _gpu("NVIDIA L40S 48 GB", bfloat16=362.0, tf32=183.0, float32=91.6, gigabytes=48.0, bandwidth=864.0),
    "l4": _gpu("NVIDIA L4 24 GB", bfloat16=121.0, tf32=60.0, float32=30.3, gigabytes=24.0, bandwidth=300.0),
    "rtx-4090": _gpu(
        "NVIDIA GeForce RTX 4090 24 GB", bfloat16=165.2, tf32=82.6, float32=82.6, gigabytes=24.0, bandwidth=1008.0
    ),
    "rtx-3090": _gpu(
        "NVIDIA GeForce RTX 3090 24 GB", bfloat16=71.0, tf32=35.6, float32=35.6, gigabytes=24.0, bandwidth=936.0
    ),
    "mi300x": _gpu(
        "AMD Instinct MI300X 192 GB", bfloat16=1307.4, tf32=653.7, float32=163.4, gigabytes=192.0, bandwidth=5300.0
    ),
}
"""By the name that `fluid plan --gpu` takes."""


def find_gpu(name: str) -> GpuModel:
    """The GPU of that name. Raises `ConfigurationError` that lists the names there are."""
    key = name.lower()
    if key not in GPUS:
        raise ConfigurationError(
            f"Expected a GPU whose figures are known, found '{name}'.{did_you_mean(key, GPUS)} Known: {listing(GPUS)}. "
            "For another one take the one that is nearest in memory."
        )
    return GPUS[key]
