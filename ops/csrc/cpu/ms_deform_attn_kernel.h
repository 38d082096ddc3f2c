// The CPU kernels, written once for any width of vectors. Each instruction set includes
// this file into a namespace of its own: GEOSEG_ISA names it, GEOSEG_VECTOR_BYTES is the
// width of its registers. No include guard, for that reason, and nothing of the standard
// library: its templates, compiled for one instruction set, could be linked into another.

namespace geoseg::cpu::GEOSEG_ISA {
namespace {

// Unaligned vectors of GCC and Clang, whose operators work lane by lane.
template <typename R>
struct Vector {
  static constexpr int lanes = GEOSEG_VECTOR_BYTES / sizeof(R);
  typedef R Type __attribute__((vector_size(GEOSEG_VECTOR_BYTES), aligned(sizeof(R)), may_alias));
};
template <typename R>
using Lanes = typename Vector<R>::Type;

template <typename R>
inline Lanes<R> load(const R* from) {
  return *reinterpret_cast<const Lanes<R>*>(from);
}

inline Lanes<float> load(const BFloat16* from) {
  constexpr int lanes = Vector<float>::lanes;
  typedef uint16_t Halves __attribute__((vector_size(2 * lanes), aligned(2), may_alias));
  typedef uint32_t Words __attribute__((vector_size(4 * lanes)));
  const Words words = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words) << 16;
  return reinterpret_cast<const Lanes<float>&>(words);
}

template <typename R>
inline R load_one(const R* from) {
  return *from;
}

inline float load_one(const BFloat16* from) {
  const uint32_t word = uint32_t(from->bits) << 16;
  float number;
  std::memcpy(&number, &word, sizeof number);
  return number;
}

template <typename R>
inline void store_one(R* to, R number) {
  *to = number;
}

// Rounds to nearest, ties to even, as torch does; NaN stays NaN.
inline void store_one(BFloat16* to, float number) {
  uint32_t word;
  std::memcpy(&word, &number, sizeof word);
  const bool nan = number != number;
  to->bits = nan ? 0x7fc0 : uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}

template <typename R>
inline void store(R* to, Lanes<R> numbers) {
  *reinterpret_cast<Lanes<R>*>(to) = numbers;
}

inline void store(BFloat16* to, Lanes<float> numbers) {
  for (int lane = 0; lane < Vector<float>::lanes; lane++) store_one(to + lane, numbers[lane]);
}

// A point within reach of its level, decoded once for all channels of the head.
template <typename R>
struct Sample {
  // Elements from the head's first value to those of the four cells around the point:
  // north-west, north-east, south-west, south-east.
  int64_t offset[4];
  R weight[4];  // times the attention weight
};

// What gradients need of it besides.
template <typename R>
struct Slopes {
  int64_t point;  // index in L * P
  R attention;
  R bilinear[4];
  R x[4], y[4];  // derivatives of `bilinear` by the location
};

// Memory for one head of one query: its samples, and their slopes for gradients.
template <typename R>
struct Scratch {
  Sample<R>* samples;
  Slopes<R>* slopes;
  R* grad_output;  // D numbers

  Scratch(void* memory, int64_t points) {
    samples = static_cast<Sample<R>*>(memory);
    slopes = reinterpret_cast<Slopes<R>*>(samples + points);
    grad_output = reinterpret_cast<R*>(slopes + points);
  }
};

// Decodes the points of one head of one query; returns how many are within reach.
template <bool gradients, typename T>
inline int64_t decode(const Inputs<T>& in, int64_t b, int64_t q, int64_t m, const Scratch<Real<T>>& scratch) {
  using R = Real<T>;
  const Sizes& n = in.sizes;
  const int64_t first = point_index(n, b, q, m), cell_stride = n.heads * n.channels;
  const R* location = in.locations + 2 * first;
  const R* attention = in.weights + first;
  int64_t level_start = 0, count = 0;
  for (int64_t level = 0; level < n.levels; level++) {
    const int64_t height = in.shapes[2 * level], width = in.shapes[2 * level + 1];
    for (int64_t p = 0; p < n.points; p++, location += 2, attention++) {
      Neighbours<R> x, y;
      if (!find_neighbours(location[0], width, x) || !find_neighbours(location[1], height, y)) continue;
      const int64_t upper = level_start + y.low * width, lower = level_start + y.high * width;
      const R weight[4] = {y.low_weight * x.low_weight, y.low_weight * x.high_weight,
                           y.high_weight * x.low_weight, y.high_weight * x.high_weight};
      Sample<R>& sample = scratch.samples[count];
      sample.offset[0] = (upper + x.low) * cell_stride;
      sample.offset[1] = (upper + x.high) * cell_stride;
      sample.offset[2] = (lower + x.low) * cell_stride;
      sample.offset[3] = (lower + x.high) * cell_stride;
      for (int corner = 0; corner < 4; corner++) sample.weight[corner] = weight[corner] * *attention;
      if constexpr (gradients) {
        Slopes<R>& slopes = scratch.slopes[count];
        const R slope_x[2] = {x.low_slope * R(width), x.high_slope * R(width)};
        const R slope_y[2] = {y.low_slope * R(height), y.high_slope * R(height)};
        for (int corner = 0; corner < 4; corner++) {
          const bool high_x = corner & 1, high_y = corner & 2;
          slopes.bilinear[corner] = weight[corner];
          slopes.x[corner] = slope_x[high_x] * (high_y ? y.high_weight : y.low_weight);
          slopes.y[corner] = slope_y[high_y] * (high_x ? x.high_weight : x.low_weight);
        }
        slopes.point = level * n.points + p;
        slopes.attention = *attention;
      }
      count++;
    }
    level_start += height * width;
  }
  return count;
}

// Sums `vectors` registers of channels over all samples. Two sums each, as one chain of
// additions would wait for itself.
template <int vectors, typename T>
inline void gather(const T* value, const Sample<Real<T>>* samples, int64_t count, T* output) {
  using R = Real<T>;
  constexpr int lanes = Vector<R>::lanes;
  Lanes<R> upper[vectors] = {}, lower[vectors] = {};
  for (const Sample<R>* sample = samples; sample != samples + count; sample++) {
    const T* corner[4];
    for (int i = 0; i < 4; i++) corner[i] = value + sample->offset[i];
    for (int v = 0; v < vectors; v++) {
      upper[v] += load(corner[0] + v * lanes) * sample->weight[0];
      lower[v] += load(corner[2] + v * lanes) * sample->weight[2];
      upper[v] += load(corner[1] + v * lanes) * sample->weight[1];
      lower[v] += load(corner[3] + v * lanes) * sample->weight[3];
    }
  }
  for (int v = 0; v < vectors; v++) store(output + v * lanes, upper[v] + lower[v]);
}

template <typename T>
inline void gather_one(const T* value, const Sample<Real<T>>* samples, int64_t count, T* output) {
  Real<T> sum = 0;
  for (const Sample<Real<T>>* sample = samples; sample != samples + count; sample++)
    for (int i = 0; i < 4; i++) sum += load_one(value + sample->offset[i]) * sample->weight[i];
  store_one(output, sum);
}

template <typename T>
inline void gather_head(const T* value, const Sample<Real<T>>* samples, int64_t count, int64_t channels,
                        T* output) {
  constexpr int lanes = Vector<Real<T>>::lanes;
  int64_t c = 0;
  for (; c + 4 * lanes <= channels; c += 4 * lanes) gather<4>(value + c, samples, count, output + c);
  if (c + 2 * lanes <= channels) gather<2>(value + c, samples, count, output + c), c += 2 * lanes;
  if (c + lanes <= channels) gather<1>(value + c, samples, count, output + c), c += lanes;
  for (; c < channels; c++) gather_one(value + c, samples, count, output + c);
}

template <typename T>
void forward(const Inputs<T>& in, T* output, int64_t begin, int64_t end, void* memory) {
  const Sizes& n = in.sizes;
  const Scratch<Real<T>> scratch(memory, n.levels * n.points);
  for (int64_t row = begin; row < end; row++) {
    const int64_t b = row / n.queries, q = row % n.queries;
    for (int64_t m = 0; m < n.heads; m++) {
      const int64_t count = decode<false>(in, b, q, m, scratch);
      gather_head(in.value + value_index(n, b, 0, m), scratch.samples, count, n.channels,
                  output + output_index(n, b, q, m));
    }
  }
}

// Product of the value of one cell with the output's gradient; adds the latter, weighted,
// to the gradient of the cell.
template <typename T>
inline Real<T> scatter(const T* value, const Real<T>* grad_output, Real<T> weight, int64_t channels,
                       Real<T>* grad_value) {
  using R = Real<T>;
  constexpr int lanes = Vector<R>::lanes;
  Lanes<R> sums = {};
  int64_t c = 0;
  for (; c + lanes <= channels; c += lanes) {
    const Lanes<R> grad = load(grad_output + c);
    sums += load(value + c) * grad;
    store(grad_value + c, load(grad_value + c) + grad * weight);
  }
  R sum = 0;
  for (int lane = 0; lane < lanes; lane++) sum += sums[lane];
  for (; c < channels; c++) {
    sum += load_one(value + c) * grad_output[c];
    grad_value[c] += grad_output[c] * weight;
  }
  return sum;
}

template <typename T>
void backward(const Inputs<T>& in, const Gradients<T>& grad, int64_t begin, int64_t end, void* memory) {
  using R = Real<T>;
  const Sizes& n = in.sizes;
  const int64_t points = n.levels * n.points;
  const Scratch<R> scratch(memory, points);
  for (int64_t head = begin; head < end; head++) {
    const int64_t b = head / n.heads, m = head % n.heads, first = value_index(n, b, 0, m);
    for (int64_t q = 0; q < n.queries; q++) {
      const T* row = grad.output + output_index(n, b, q, m);
      for (int64_t c = 0; c < n.channels; c++) scratch.grad_output[c] = load_one(row + c);
      R* grad_weights = grad.weights + point_index(n, b, q, m);
      R* grad_locations = grad.locations + 2 * point_index(n, b, q, m);
      for (int64_t i = 0; i < points; i++) grad_weights[i] = grad_locations[2 * i] = grad_locations[2 * i + 1] = 0;
      const int64_t count = decode<true>(in, b, q, m, scratch);
      for (int64_t i = 0; i < count; i++) {
        const Sample<R>& sample = scratch.samples[i];
        const Slopes<R>& slopes = scratch.slopes[i];
        R by_weight = 0, by_x = 0, by_y = 0;
        for (int corner = 0; corner < 4; corner++) {
          const int64_t place = first + sample.offset[corner];
          const R product = scatter(in.value + place, scratch.grad_output, sample.weight[corner], n.channels,
                                    grad.value + place);
          by_weight += product * slopes.bilinear[corner];
          by_x += product * slopes.x[corner];
          by_y += product * slopes.y[corner];
        }
        grad_weights[slopes.point] = by_weight;
        grad_locations[2 * slopes.point] = by_x * slopes.attention;
        grad_locations[2 * slopes.point + 1] = by_y * slopes.attention;
      }
    }
  }
}

}  // namespace

template <typename T>
Kernels<T> kernels() {
  return {&forward<T>, &backward<T>, sizeof(Sample<Real<T>>) + sizeof(Slopes<Real<T>>)};
}
template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();
template Kernels<BFloat16> kernels<BFloat16>();

}  // namespace geoseg::cpu::GEOSEG_ISA
