// Sums rows of a table: the loads of deformable attention, and nothing else. Head after
// head over consecutive rows, so that each head's rows lie in the second cache, as far as
// they fit: what is measured is how fast rows come from there.
#include <cstdint>

namespace {

template <int lanes>
void sum_rows(const float* table, const int32_t* rows, int64_t outputs, int64_t per_output, float* sums) {
  typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
  for (int64_t i = 0; i < outputs; i++, rows += per_output) {
    Lanes sum[lanes] = {}, other[lanes] = {};
    for (int64_t r = 0; r < per_output; r += 2) {
      const float *one = table + int64_t(rows[r]) * (16 * lanes), *two = table + int64_t(rows[r + 1]) * (16 * lanes);
      for (int l = 0; l < lanes; l++) {
        sum[l] += *reinterpret_cast<const Lanes*>(one + 16 * l);
        other[l] += *reinterpret_cast<const Lanes*>(two + 16 * l);
      }
    }
    // One row for all: to write the output is no part of the limit.
    for (int l = 0; l < lanes; l++) *reinterpret_cast<Lanes*>(sums + 16 * l) += sum[l] + other[l];
  }
}

}  // namespace

// `rows` of one head, `per_output` (even) of them for each output.
extern "C" int gather(const float* table, const int32_t* rows, int64_t outputs, int64_t per_output,
                      int64_t dim, float* sums) {
  if (dim == 32) return sum_rows<2>(table, rows, outputs, per_output, sums), 0;
  if (dim == 64) return sum_rows<4>(table, rows, outputs, per_output, sums), 0;
  if (dim == 128) return sum_rows<8>(table, rows, outputs, per_output, sums), 0;
  return 1;
}
