#include "launch.cuh"

namespace geoseg::cuda {
GEOSEG_INSTANTIATE(BFloat16);
}  // namespace geoseg::cuda
