#include "launch.cuh"

namespace geoseg::cuda {
GEOSEG_INSTANTIATE(double);
}  // namespace geoseg::cuda
