#include "launch.cuh"

namespace geoseg::cuda {
GEOSEG_INSTANTIATE(float);
}  // namespace geoseg::cuda
