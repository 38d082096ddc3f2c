#include <cuda_runtime_api.h>

#include "ms_deform_attn.h"

namespace geoseg::cuda {

const char* explain(int error) {
  switch (error) {
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorNoKernelImageForDevice:
      return "this GPU is older than those that geoseg was built for (compute capability 8.0 and newer, unless "
             "GEOSEG_CUDA_ARCHS named others); build it with GEOSEG_CUDA_ARCHS naming this one, such as 75, or take "
             "the PyTorch reference: geoseg.ops.use_reference(), or GEOSEG_OPS=none";
    case cudaErrorInsufficientDriver:
    case cudaErrorUnsupportedPtxVersion:
      return "the NVIDIA driver is older than the CUDA toolkit that geoseg was built with; install a newer "
             "driver, or take the PyTorch reference: geoseg.ops.use_reference(), or GEOSEG_OPS=none";
    case cudaErrorInvalidValue:
      return "the call is too large: queries times heads, times the groups of 32 lanes that a head of more channels "
             "takes, must stay below 2^31; split the queries";
    default:
      return cudaGetErrorString(static_cast<cudaError_t>(error));
  }
}

}  // namespace geoseg::cuda
