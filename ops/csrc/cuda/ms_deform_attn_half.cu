#include "launch.cuh"

namespace geoseg::cuda {
GEOSEG_INSTANTIATE(Half);
}  // namespace geoseg::cuda
