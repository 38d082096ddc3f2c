// Multi-scale deformable attention on CUDA: checks, memory, device and stream.
#include "ms_deform_attn.h"

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>
#include <vector>

// In torch's CUDA library, which a torch for CPUs lacks: weak, so that ours loads there,
// too. torch/csrc/stable has streams' handles since 2.13 only.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device, void** stream);

namespace geoseg::cuda {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t LONGEST_SIDE = int64_t(1) << 23;
constexpr int64_t MOST = int64_t(1) << 31;
constexpr int64_t GRID = 65535;  // most blocks in y and z

template <typename T>
constexpr ScalarType real_type = sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float;

Levels read_levels(const std::vector<int64_t>& sides, int64_t cells, const char* name) {
  STD_TORCH_CHECK(sides.size() % 2 == 0 && !sides.empty(), name, " must be height and width of each level");
  STD_TORCH_CHECK(sides.size() <= 2 * Levels::most, name, " has ", sides.size() / 2, " levels; the CUDA kernels take ",
                  Levels::most, ", geoseg.ops.use_reference() any number");
  Levels levels = {};
  levels.count = int(sides.size() / 2);
  int64_t start = 0;
  for (int level = 0; level < levels.count; level++) {
    const int64_t height = sides[2 * level], width = sides[2 * level + 1];
    STD_TORCH_CHECK(height > 0 && width > 0, name, " holds an empty level");
    // Beyond, float32 cannot tell neighbouring cells apart. It also keeps products small.
    STD_TORCH_CHECK(height <= LONGEST_SIDE && width <= LONGEST_SIDE, "a level has a side of more than 2^23 cells");
    levels.height[level] = int(height);
    levels.width[level] = int(width);
    levels.start[level] = int(start);
    start += height * width;
    STD_TORCH_CHECK(start < MOST, name, " has 2^31 cells or more");
  }
  STD_TORCH_CHECK(start == cells, name, " adds up to ", start, " cells, not ", cells);
  return levels;
}

// `places` are locations or offsets (B, Q, M, L, P, 2), `weights` weights or logits.
Shape read_shape(const Tensor& value, const Levels& levels, const Tensor& places, const Tensor& weights) {
  // The Python front has checked shapes with better words; this guards memory.
  STD_TORCH_CHECK(places.size(0) == value.size(0) && places.size(2) == value.size(2) &&
                      places.size(3) == levels.count && places.size(5) == 2 && weights.numel() * 2 == places.numel(),
                  "points and their weights do not fit value");
  STD_TORCH_CHECK(value.size(2) * value.size(3) * int64_t(sizeof(double)) < MOST,
                  "a cell of value has more than 2^28 channels");
  // One block of the deterministic backward takes 32 channels; a grid has 65535 in a row.
  STD_TORCH_CHECK(value.size(3) <= 32 * GRID, "a head of value has more than ", 32 * GRID, " channels");
  // Kernels go beyond by a step: a grid of batch items, a warp of points.
  STD_TORCH_CHECK(value.size(0) < MOST - GRID && places.size(4) * levels.count < MOST - GRID,
                  "value or points are too many");
  return {value.size(0), value.size(1), int(value.size(2)), int(value.size(3)), places.size(1), int(places.size(4))};
}

void check_ranks(const Tensor& value, const Tensor& places) {
  STD_TORCH_CHECK(value.dim() == 4 && places.dim() == 6, "value must be (B, S, M, D), points (B, Q, M, L, P, 2)");
}

void check_device(const Tensor& value, const Tensor& other) {
  STD_TORCH_CHECK(other.is_cuda() && other.get_device_index() == value.get_device_index(),
                  "all tensors must be on the device of value, cuda:", value.get_device_index(), "; move them there");
}

// Contiguous, and at an address that 16 bytes at once may be read from.
Tensor readable(const Tensor& value, const Tensor& tensor) {
  check_device(value, tensor);
  const Tensor whole = torch::stable::contiguous(tensor);
  return reinterpret_cast<uintptr_t>(whole.const_data_ptr()) % 16 ? torch::stable::clone(whole) : whole;
}

template <typename E>
const E* data(const Tensor& tensor) {
  return static_cast<const E*>(tensor.const_data_ptr());
}
template <typename E>
E* mutable_data(Tensor& tensor) {
  return static_cast<E*>(tensor.mutable_data_ptr());
}

void* current_stream(const Tensor& value) {
  // A torch that keeps it elsewhere would end the program here.
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this torch does not say what its CUDA stream is; ",
                  "install a torch for CUDA, or take the PyTorch reference: geoseg.ops.use_reference()");
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(value.get_device_index(), &stream));
  return stream;
}

void check_started(int error) { STD_TORCH_CHECK(error == 0, "ms_deform_attn did not start: ", explain(error)); }

template <typename T>
void check_points(const Tensor& locations, const Tensor& weights) {
  STD_TORCH_CHECK(locations.scalar_type() == real_type<T> && weights.scalar_type() == real_type<T>,
                  "sampling_locations and attention_weights must be float32, or float64 for a float64 value");
}

template <typename T>
Tensor run_forward(const Tensor& value_, const std::vector<int64_t>& sides, const Tensor& locations_,
                   const Tensor& weights_) {
  check_ranks(value_, locations_);
  check_points<T>(locations_, weights_);
  const Levels levels = read_levels(sides, value_.size(1), "spatial_shapes");
  const Shape shape = read_shape(value_, levels, locations_, weights_);
  const torch::stable::accelerator::DeviceGuard guard(value_.get_device_index());
  const Tensor value = readable(value_, value_), locations = readable(value_, locations_);
  const Tensor weights = readable(value_, weights_);
  Tensor output = torch::stable::new_empty(value, {shape.batch, shape.queries, int64_t(shape.heads) * shape.channels});
  check_started(forward<T>(shape, levels, data<T>(value), {data<Real<T>>(locations), data<Real<T>>(weights)},
                           mutable_data<T>(output), current_stream(value)));
  return output;
}

template <typename T>
Tensor run_fused(const Tensor& value_, const std::vector<int64_t>& sides, const std::vector<int64_t>& query_sides,
                 Tensor offsets, Tensor logits) {
  check_ranks(value_, offsets);
  const Levels levels = read_levels(sides, value_.size(1), "spatial_shapes");
  const Levels grid = read_levels(query_sides, offsets.size(1), "query_shapes");
  const Shape shape = read_shape(value_, levels, offsets, logits);
  const torch::stable::accelerator::DeviceGuard guard(value_.get_device_index());
  const ScalarType stored = value_.scalar_type();
  const bool narrow = offsets.scalar_type() == stored && logits.scalar_type() == stored && stored != real_type<T>;
  if (!narrow) {
    offsets = torch::stable::to(offsets, real_type<T>);
    logits = torch::stable::to(logits, real_type<T>);
  }
  const Tensor value = readable(value_, value_);
  offsets = readable(value_, offsets);
  logits = readable(value_, logits);
  Tensor output = torch::stable::new_empty(value, {shape.batch, shape.queries, int64_t(shape.heads) * shape.channels});
  const RawPoints<T> points{offsets.const_data_ptr(), logits.const_data_ptr(), narrow, grid};
  check_started(
      forward_fused<T>(shape, levels, data<T>(value), points, mutable_data<T>(output), current_stream(value)));
  return output;
}

using ThreeTensors = std::tuple<Tensor, Tensor, Tensor>;

template <typename T>
ThreeTensors run_backward(const Tensor& grad_output_, const Tensor& value_, const std::vector<int64_t>& sides,
                          const Tensor& locations_, const Tensor& weights_, bool deterministic) {
  check_ranks(value_, locations_);
  check_points<T>(locations_, weights_);
  const Levels levels = read_levels(sides, value_.size(1), "spatial_shapes");
  const Shape shape = read_shape(value_, levels, locations_, weights_);
  STD_TORCH_CHECK(grad_output_.scalar_type() == value_.scalar_type() &&
                      grad_output_.numel() == shape.batch * shape.queries * shape.heads * shape.channels,
                  "grad_output must have the shape and dtype of the output");
  const torch::stable::accelerator::DeviceGuard guard(value_.get_device_index());
  const Tensor grad_output = readable(value_, grad_output_), value = readable(value_, value_);
  const Tensor locations = readable(value_, locations_), weights = readable(value_, weights_);
  // In the dtype of the sums; 16 bits would lose most of what they add up.
  Tensor grad_value =
      torch::stable::new_empty(locations, {shape.batch, shape.cells, int64_t(shape.heads), int64_t(shape.channels)});
  if (!deterministic) torch::stable::zero_(grad_value);
  Tensor grad_locations = torch::stable::empty_like(locations);
  Tensor grad_weights = torch::stable::empty_like(weights);
  const Gradients<T> gradients{data<T>(grad_output), mutable_data<Real<T>>(grad_value),
                               mutable_data<Real<T>>(grad_locations), mutable_data<Real<T>>(grad_weights),
                               deterministic};
  check_started(backward<T>(shape, levels, data<T>(value), {data<Real<T>>(locations), data<Real<T>>(weights)},
                            gradients, current_stream(value)));
  if (grad_value.scalar_type() != value.scalar_type())
    grad_value = torch::stable::to(grad_value, value.scalar_type());
  return {grad_value, grad_locations, grad_weights};
}

// Calls `run` with a value of the type that is stored.
template <typename Run>
auto with_type(const Tensor& value, const Run& run) {
  switch (value.scalar_type()) {
    case ScalarType::Float:
      return run(float());
    case ScalarType::Double:
      return run(double());
    case ScalarType::Half:
      return run(Half());
    case ScalarType::BFloat16:
      return run(BFloat16());
    default:
      STD_TORCH_CHECK(false, "value must be float32, float64, float16 or bfloat16");
  }
}

Tensor ms_deform_attn(Tensor value, std::vector<int64_t> shapes, Tensor locations, Tensor weights) {
  return with_type(value, [&](auto type) { return run_forward<decltype(type)>(value, shapes, locations, weights); });
}

Tensor ms_deform_attn_fused(Tensor value, std::vector<int64_t> shapes, std::vector<int64_t> query_shapes,
                            Tensor offsets, Tensor logits) {
  return with_type(
      value, [&](auto type) { return run_fused<decltype(type)>(value, shapes, query_shapes, offsets, logits); });
}

ThreeTensors ms_deform_attn_backward(Tensor grad_output, Tensor value, std::vector<int64_t> shapes, Tensor locations,
                                     Tensor weights, bool deterministic) {
  return with_type(value, [&](auto type) {
    return run_backward<decltype(type)>(grad_output, value, shapes, locations, weights, deterministic);
  });
}

}  // namespace
}  // namespace geoseg::cuda

STABLE_TORCH_LIBRARY_IMPL(geoseg, CUDA, library) {
  library.impl("ms_deform_attn", TORCH_BOX(&geoseg::cuda::ms_deform_attn));
  library.impl("ms_deform_attn_fused", TORCH_BOX(&geoseg::cuda::ms_deform_attn_fused));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&geoseg::cuda::ms_deform_attn_backward));
}
