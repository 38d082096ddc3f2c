// Multi-scale deformable attention on the CPU: checks, choice of kernels, threads.
#include "ms_deform_attn.h"

#include "../instructions.h"
#include "../scratch.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

namespace geoseg::cpu {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename T>
const Kernels<T>& choose_kernels() {
  static const Kernels<T> chosen = [] {
    switch (choose_instructions()) {
#if defined(__x86_64__)
      case Instructions::avx512:
        return avx512::kernels<T>();
      case Instructions::avx2:
        return avx2::kernels<T>();
#endif
      case Instructions::portable:
        return portable::kernels<T>();
      default:
        STD_TORCH_CHECK(false, "GEOSEG_CPU names instructions that this processor lacks; use portable, avx2 or avx512");
    }
  }();
  return chosen;
}

// Large results come as pages that the system clears one by one when they are first
// written; huge ones, where it has them, take a quarter of that time.
void advise_huge_pages(void* memory, int64_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t page = 4096;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / page * page;
  // A refusal costs nothing but the time.
  if (bytes >= int64_t(4) << 20) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

constexpr int64_t LONGEST_SIDE = int64_t(1) << 23;

// Cells of all levels.
int64_t count_cells(const std::vector<int64_t>& shapes) {
  int64_t cells = 0;
  for (size_t i = 0; i + 1 < shapes.size(); i += 2) {
    const int64_t height = shapes[i], width = shapes[i + 1];
    STD_TORCH_CHECK(height > 0 && width > 0, "a level is empty");
    // Beyond, float32 cannot tell neighbouring cells apart. It also keeps products small.
    STD_TORCH_CHECK(height <= LONGEST_SIDE && width <= LONGEST_SIDE, "a level has a side of more than 2^23 cells");
    cells += height * width;
  }
  return cells;
}

// Sizes of `value`, of points (locations or offsets) and of a number for each of these.
Sizes read_sizes(const Tensor& value, const std::vector<int64_t>& shapes, const Tensor& points,
                 const Tensor& weights) {
  // The Python front has checked shapes with better words; this guards memory.
  STD_TORCH_CHECK(value.dim() == 4 && points.dim() == 6, "value must be (B, S, M, D) and points (B, Q, M, L, P, 2)");
  const Sizes n{value.size(0), value.size(1), value.size(2), value.size(3),
                points.size(1), points.size(3), points.size(4)};
  STD_TORCH_CHECK(int64_t(shapes.size()) == 2 * n.levels && count_cells(shapes) == n.cells,
                  "spatial_shapes do not add up to the cells of value");
  STD_TORCH_CHECK(points.size(0) == n.batch && points.size(2) == n.heads && points.size(5) == 2,
                  "points do not fit value");
  STD_TORCH_CHECK(weights.numel() * 2 == points.numel(), "weights do not fit points");
  return n;
}

template <typename T>
constexpr ScalarType real_type = sizeof(Real<T>) == 8 ? ScalarType::Double : ScalarType::Float;

template <typename E>
const E* data(const Tensor& tensor) {
  return static_cast<const E*>(tensor.const_data_ptr());
}

template <typename T>
struct Prepared {
  Tensor value, locations, weights;
  Inputs<T> inputs;
  GivenPoints<T> points;

  Prepared(const Tensor& v, const std::vector<int64_t>& shapes, const Tensor& l, const Tensor& w)
      : value(torch::stable::contiguous(v)),
        locations(torch::stable::contiguous(l)),
        weights(torch::stable::contiguous(w)),
        inputs{read_sizes(v, shapes, l, w), shapes.data(), data<T>(value)} {
    STD_TORCH_CHECK(l.scalar_type() == real_type<T> && w.scalar_type() == real_type<T>,
                    "sampling_locations and attention_weights must be float32, or float64 for a float64 value");
    points = {data<Real<T>>(locations), data<Real<T>>(weights)};
  }
};

template <typename T, typename Points>
Tensor run_forward(const Tensor& value, const Inputs<T>& inputs, const Points& points, Forward<T, Points> kernel) {
  const Sizes& n = inputs.sizes;
  Tensor output = torch::stable::new_empty(value, {n.batch, n.queries, n.heads * n.channels});
  if (output.numel() == 0) return output;
  T* to = static_cast<T*>(output.mutable_data_ptr());
  advise_huge_pages(to, output.numel() * sizeof(T));
  const Kernels<T>& kernels = choose_kernels<T>();
  // Enough work for a thread to be worth waking: some 10,000 multiplications.
  const int64_t grain = std::max<int64_t>(1, 10000 / std::max<int64_t>(1, n.levels * n.points * n.channels));
  torch::stable::parallel_for(0, n.batch * n.heads * n.queries, grain, [&](int64_t begin, int64_t end) {
    const Scratch scratch(kernels.forward_bytes(n, begin, end));
    kernel(inputs, points, to, begin, end, scratch.begin());
  });
  return output;
}

template <typename T>
Tensor forward(const Tensor& value, const std::vector<int64_t>& shapes, const Tensor& locations,
               const Tensor& weights) {
  const Prepared<T> prepared(value, shapes, locations, weights);
  return run_forward(value, prepared.inputs, prepared.points, choose_kernels<T>().forward);
}

template <typename T>
Tensor fused(const Tensor& value_, const std::vector<int64_t>& shapes, const std::vector<int64_t>& grid,
             Tensor offsets, Tensor logits) {
  const Tensor value = torch::stable::contiguous(value_);
  const Inputs<T> inputs{read_sizes(value, shapes, offsets, logits), shapes.data(), data<T>(value)};
  STD_TORCH_CHECK(grid.size() % 2 == 0 && count_cells(grid) == inputs.sizes.queries,
                  "query_shapes do not add up to the queries");
  const ScalarType stored = value.scalar_type();
  const bool narrow = offsets.scalar_type() == stored && logits.scalar_type() == stored;
  const auto readable = [&](const Tensor& tensor) {
    return torch::stable::contiguous(narrow ? tensor : torch::stable::to(tensor, real_type<T>));
  };
  offsets = readable(offsets);
  logits = readable(logits);
  if (narrow) {
    const RawPoints<T> points{grid.data(), data<T>(offsets), data<T>(logits)};
    return run_forward(value, inputs, points, choose_kernels<T>().fused_narrow);
  }
  const RawPoints<Real<T>> points{grid.data(), data<Real<T>>(offsets), data<Real<T>>(logits)};
  return run_forward(value, inputs, points, choose_kernels<T>().fused);
}

template <typename T>
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& value,
                                            const std::vector<int64_t>& shapes, const Tensor& locations,
                                            const Tensor& weights) {
  const Prepared<T> prepared(value, shapes, locations, weights);
  const Sizes& n = prepared.inputs.sizes;
  const Tensor output = torch::stable::contiguous(grad_output);
  STD_TORCH_CHECK(output.scalar_type() == value.scalar_type() &&
                      output.numel() == n.batch * n.queries * n.heads * n.channels,
                  "grad_output must have the shape and dtype of the output");
  Tensor grad_value = torch::stable::empty_like(prepared.value);
  Tensor grad_locations = torch::stable::empty_like(prepared.locations);
  Tensor grad_weights = torch::stable::empty_like(prepared.weights);
  for (const Tensor* grad : {&grad_value, &grad_locations, &grad_weights})
    advise_huge_pages(grad->mutable_data_ptr(), grad->numel() * grad->element_size());
  const Gradients<T> gradients{static_cast<const T*>(output.const_data_ptr()),
                               static_cast<T*>(grad_value.mutable_data_ptr()),
                               static_cast<Real<T>*>(grad_locations.mutable_data_ptr()),
                               static_cast<Real<T>*>(grad_weights.mutable_data_ptr())};
  const Kernels<T>& kernels = choose_kernels<T>();
  // Without channels, the tensors' memory may be nowhere at all.
  if (n.channels == 0) return {grad_value, torch::stable::zero_(grad_locations), torch::stable::zero_(grad_weights)};
  torch::stable::parallel_for(0, n.batch * n.heads, 1, [&](int64_t begin, int64_t end) {
    const Scratch scratch(kernels.backward_bytes(n));
    kernels.backward(prepared.inputs, prepared.points, gradients, begin, end, scratch.begin());
  });
  return {grad_value, grad_locations, grad_weights};
}

// Calls `run` with a number of the type that is stored.
template <typename Run>
auto with_type(const Tensor& value, const Run& run) {
  switch (value.scalar_type()) {
    case ScalarType::Float:
      return run(float());
    case ScalarType::Double:
      return run(double());
    case ScalarType::BFloat16:
      return run(BFloat16());
    default:
      STD_TORCH_CHECK(false, "value must be float32, float64 or bfloat16 on the CPU");
  }
}

Tensor ms_deform_attn(Tensor value, std::vector<int64_t> shapes, Tensor locations, Tensor weights) {
  return with_type(value, [&](auto type) { return forward<decltype(type)>(value, shapes, locations, weights); });
}

Tensor ms_deform_attn_fused(Tensor value, std::vector<int64_t> shapes, std::vector<int64_t> query_shapes,
                            Tensor offsets, Tensor logits) {
  return with_type(value,
                   [&](auto type) { return fused<decltype(type)>(value, shapes, query_shapes, offsets, logits); });
}

std::tuple<Tensor, Tensor, Tensor> ms_deform_attn_backward(Tensor grad_output, Tensor value,
                                                           std::vector<int64_t> shapes, Tensor locations,
                                                           Tensor weights, bool /*deterministic: always*/) {
  return with_type(value, [&](auto type) {
    return backward<decltype(type)>(grad_output, value, shapes, locations, weights);
  });
}

}  // namespace
}  // namespace geoseg::cpu

STABLE_TORCH_LIBRARY_IMPL(geoseg, CPU, library) {
  library.impl("ms_deform_attn", TORCH_BOX(&geoseg::cpu::ms_deform_attn));
  library.impl("ms_deform_attn_fused", TORCH_BOX(&geoseg::cpu::ms_deform_attn_fused));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&geoseg::cpu::ms_deform_attn_backward));
}
