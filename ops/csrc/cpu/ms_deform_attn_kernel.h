// The CPU kernels, written once for any width of vectors. Each instruction set includes
// this file into a namespace of its own: GEOSEG_ISA names it, GEOSEG_VECTOR_BYTES is the
// width of its registers. No include guard, for that reason, and nothing of the standard
// library: its templates, compiled for one instruction set, could be linked into another.
//
// Head after head: the values of one head, copied into consecutive rows, mostly fit into
// the second cache, where those of all heads do not.

namespace geoseg::cpu::GEOSEG_ISA {
namespace {

#include "../arena.h"

#include "../lanes.h"

#include "vectors.h"

#include "ms_deform_attn_block.h"

#include "ms_deform_attn_fused.h"

// Whether cells, and the row of zeros behind them, can be counted in 32 bits.
inline bool is_small(const Sizes& n) { return n.cells < (int64_t(1) << 31) - 1; }

// Copies one head's values into consecutive rows and adds a row of zeros.
template <typename T>
inline void pack(const Inputs<T>& in, int64_t b, int64_t m, T* rows) {
  const Sizes& n = in.sizes;
  const T* from = in.value + value_index(n, b, 0, m);
  for (int64_t cell = 0; cell < n.cells; cell++, from += n.heads * n.channels, rows += n.channels)
    std::memcpy(rows, from, n.channels * sizeof(T));
  std::memset(static_cast<void*>(rows), 0, n.channels * sizeof(T));
}

// Sums `vectors` registers of channels over the points of a query. Several sums each, as
// one chain of additions would wait for itself.
template <int vectors, bool copied, typename T, typename Index>
inline void gather(const Table<T>& table, int64_t c, const Block<Real<T>, Index>& block, int64_t begin, int64_t end, T* output) {
  using R = Real<T>;
  constexpr int lanes = Vector<R>::lanes, chains = vectors < 4 ? 4 : vectors < 8 ? 2 : 1;
  Lanes<R> sums[chains][vectors] = {};
  for (int64_t i = begin; i < end; i++) {
    for (int corner = 0; corner < 4; corner++) {
      const Index cell = block.cell[corner][i];
      if (!copied && cell == block.zeros) continue;  // There is no row of zeros to read.
      const R weight = block.weight[corner][i];
      const T* row = table.rows + int64_t(cell) * table.stride + c;
      for (int v = 0; v < vectors; v++) sums[corner % chains][v] += load(row + v * lanes) * weight;
    }
  }
  for (int v = 0; v < vectors; v++) {
    for (int chain = 1; chain < chains; chain++) sums[0][v] += sums[chain][v];
    store(output + v * lanes, sums[0][v]);
  }
}

template <bool copied, typename T, typename Index>
inline void gather_one(const Table<T>& table, int64_t c, const Block<Real<T>, Index>& block, int64_t begin, int64_t end, T* output) {
  Real<T> sum = 0;
  for (int64_t i = begin; i < end; i++)
    for (int corner = 0; corner < 4; corner++) {
      const Index cell = block.cell[corner][i];
      if (!copied && cell == block.zeros) continue;
      sum += load_one(table.rows + int64_t(cell) * table.stride + c) * block.weight[corner][i];
    }
  store_one(output, sum);
}

template <bool copied, typename T, typename Index>
inline void gather_head(const Table<T>& table, const Block<Real<T>, Index>& block, int64_t begin, int64_t end,
                        int64_t channels, T* output) {
  constexpr int lanes = Vector<Real<T>>::lanes;
  // As many registers as there are for sums.
  constexpr int most = GEOSEG_VECTOR_BYTES == 64 ? 8 : 4;
  int64_t c = 0;
  for (; c + most * lanes <= channels; c += most * lanes)
    gather<most, copied>(table, c, block, begin, end, output + c);
  if (most > 4 && c + 4 * lanes <= channels) gather<4, copied>(table, c, block, begin, end, output + c), c += 4 * lanes;
  if (c + 2 * lanes <= channels) gather<2, copied>(table, c, block, begin, end, output + c), c += 2 * lanes;
  if (c + lanes <= channels) gather<1, copied>(table, c, block, begin, end, output + c), c += lanes;
  for (; c < channels; c++) gather_one<copied>(table, c, block, begin, end, output + c);
}

// The output of the queries [begin, end) of one head.
template <bool copied, typename T, typename Points, typename Index>
inline void forward_head(const Sizes& n, const Points& points, int64_t b, int64_t m, int64_t begin, int64_t end,
                         const Block<Real<T>, Index>& block, const Table<T>& table, T* output) {
  for (int64_t q = begin; q < end; q += block.queries) {
    const int64_t count = q + block.queries < end ? block.queries : end - q;
    read_points(n, points, b, q, m, count, block);
    decode<in_cells<Points>>(block, count * block.points);
    for (int64_t i = 0; i < count; i++)
      gather_head<copied>(table, block, i * block.points, (i + 1) * block.points, n.channels,
                          output + output_index(n, b, q + i, m));
  }
}

// Whether to copy values, for so many rows of B * M * Q: it must be less than what is read.
inline bool copies(const Sizes& n, int64_t begin, int64_t end) {
  const int64_t heads = (end - 1) / n.queries - begin / n.queries + 1;
  return is_small(n) && (end - begin) * n.levels * n.points * 4 >= heads * n.cells;
}

template <bool copied, typename Index, typename T, typename Points>
inline void forward_rows(const Inputs<T>& in, const Points& points, T* output, int64_t begin, int64_t end, void* memory) {
  const Sizes& n = in.sizes;
  Arena arena(memory);
  T* rows = copied ? arena.take<T>((n.cells + 1) * n.channels) : nullptr;
  const Block<Real<T>, Index> block(n, in.shapes, arena);
  while (begin < end) {
    const int64_t head = begin / n.queries, b = head / n.heads, m = head % n.heads, q = begin % n.queries;
    const int64_t stop = end - begin < n.queries - q ? q + end - begin : n.queries;
    if (copied) pack(in, b, m, rows);
    const Table<T> own{rows, n.channels}, shared{in.value + value_index(n, b, 0, m), n.heads * n.channels};
    forward_head<copied>(n, points, b, m, q, stop, block, copied ? own : shared, output);
    begin += stop - q;
  }
}

template <typename T, typename Points>
void forward(const Inputs<T>& in, const Points& points, T* output, int64_t begin, int64_t end, void* memory) {
  if (copies(in.sizes, begin, end))
    forward_rows<true, NaturalIndex<Real<T>>>(in, points, output, begin, end, memory);
  else if (is_small(in.sizes))
    forward_rows<false, NaturalIndex<Real<T>>>(in, points, output, begin, end, memory);
  else
    forward_rows<false, int64_t>(in, points, output, begin, end, memory);
}

template <typename T>
int64_t forward_bytes(const Sizes& n, int64_t begin, int64_t end) {
  const int64_t copied = copies(n, begin, end) ? Arena::size_of<T>((n.cells + 1) * n.channels) : 0;
  return copied + Block<Real<T>, int64_t>::bytes(n);
}

#include "ms_deform_attn_backward.h"

}  // namespace

template <typename T>
Kernels<T> kernels() {
  return {&forward<T, GivenPoints<T>>, &forward<T, RawPoints<Real<T>>>, &forward<T, RawPoints<T>>,
          &forward_bytes<T>, &backward<T>, &backward_bytes<T>};
}
template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();
template Kernels<BFloat16> kernels<BFloat16>();

}  // namespace geoseg::cpu::GEOSEG_ISA
