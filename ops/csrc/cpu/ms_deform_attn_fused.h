// Points from raw projections, for ms_deform_attn_kernel.h and in its namespace.

// e^x for x <= 0, with an error of some units in the last place; 0 where the result would
// not be a normal number. NaN stays NaN; of positive numbers anything may come.
template <typename R>
inline Lanes<R> exp_of_negative(Lanes<R> x) {
  using Math = VectorMath<R>;
  using Index = typename Math::Index;
  constexpr bool wide = sizeof(R) == 8;
  constexpr R lowest = wide ? R(-708) : R(-87);
  // Others would leave the range of integers below.
  const auto normal = (x >= lowest) & (x <= R(0));
  const Lanes<R> safe = normal ? x : Lanes<R>{};
  // x = n ln 2 + r with |r| <= ln 2 / 2. The high part of ln 2 has so few digits that n
  // times it is exact.
  constexpr R log2_e = R(1.4426950408889634), half = R(0.5);
  constexpr R high = wide ? R(0x1.62e42fee00000p-1) : R(0x1.62e4p-1);
  constexpr R low = wide ? R(0x1.a39ef35793c76p-33) : R(0x1.7f7d1cp-20);
  const Index n = Math::truncate(safe * log2_e - half);
  const Lanes<R> r = safe - Math::real(n) * high - Math::real(n) * low;
  // Taylor's series: what follows is less than rounding.
  constexpr int terms = wide ? 13 : 7;
  Lanes<R> sum = Lanes<R>{} + R(1);
  for (int k = terms; k > 0; k--) sum = sum * r * (R(1) / R(k)) + R(1);
  // 2^n, from its bits.
  constexpr int bias = wide ? 1023 : 127, mantissa = wide ? 52 : 23;
  const Index bits = (n + bias) << mantissa;
  const Lanes<R> result = sum * reinterpret_cast<const Lanes<R>&>(bits);
  return normal ? result : x < lowest ? Lanes<R>{} : x;
}

// Where a query lies on its level, and how far the next ones are from it.
class GridWalk {
 public:
  GridWalk(const int64_t* grid, int64_t query) : grid_(grid) {
    while (query >= grid_[0] * grid_[1]) query -= grid_[0] * grid_[1], grid_ += 2;
    row_ = query / grid_[1];
    column_ = query % grid_[1];
  }

  template <typename R>
  R x() const {
    return (R(column_) + R(0.5)) / R(grid_[1]);
  }
  template <typename R>
  R y() const {
    return (R(row_) + R(0.5)) / R(grid_[0]);
  }

  void advance() {
    if (++column_ < grid_[1]) return;
    column_ = 0;
    if (++row_ < grid_[0]) return;
    row_ = 0;
    grid_ += 2;
  }

 private:
  const int64_t* grid_;
  int64_t row_, column_;
};

// Combines numbers by `combine`, in four chains, as one would wait for itself.
template <typename R, typename Combine>
inline R reduce(const R* numbers, int64_t count, R start, const Combine& combine) {
  R chains[4] = {start, start, start, start};
  int64_t i = 0;
  for (; i + 4 <= count; i += 4)
    for (int chain = 0; chain < 4; chain++) chains[chain] = combine(chains[chain], numbers[i + chain]);
  for (; i < count; i++) chains[0] = combine(chains[0], numbers[i]);
  return combine(combine(chains[0], chains[1]), combine(chains[2], chains[3]));
}

// The softmax of each of `count` queries. `known` is the number of points, or 0.
template <int known, typename R>
inline void normalise(R* attention, int64_t any, int64_t count) {
  const int64_t points = known ? known : any;
  for (int64_t query = 0; query < count; query++) {
    R* own = attention + query * points;
    const R largest = reduce(own, points, R(-__builtin_inf()), [](R a, R b) { return b > a ? b : a; });
    for (int64_t p = 0; p < points; p++) own[p] -= largest;
  }
  constexpr int lanes = Vector<R>::lanes;
  for (int64_t i = 0; i < count * points; i += lanes)
    store(attention + i, exp_of_negative<R>(load(attention + i)));
  for (int64_t query = 0; query < count; query++) {
    R* own = attention + query * points;
    const R rate = R(1) / reduce(own, points, R(0), [](R a, R b) { return a + b; });
    for (int64_t p = 0; p < points; p++) own[p] *= rate;
  }
}

// Reads the offsets and logits of `count` queries from `q` on.
template <int known, typename Stored, typename R, typename Index>
inline void read_raw(const Sizes& n, const RawPoints<Stored>& raw, int64_t b, int64_t q, int64_t m, int64_t count,
                     const Block<R, Index>& block) {
  const int64_t points = known ? known : block.points, between = n.heads * points;
  const Stored* logits = raw.logits + point_index(n, b, q, m);
  const Stored* offsets = raw.offsets + 2 * point_index(n, b, q, m);
  R *__restrict x = block.x, *__restrict y = block.y, *__restrict attention = block.attention;
  GridWalk walk(raw.grid, q);
  for (int64_t query = 0; query < count; query++, walk.advance()) {
    __builtin_prefetch(logits + PREFETCHED_QUERIES * between);
    __builtin_prefetch(offsets + 2 * PREFETCHED_QUERIES * between);
    const R own_x = walk.x<R>(), own_y = walk.y<R>();
    for (int64_t p = 0; p < points; p++) {
      // (x + offset / width) * width - 0.5, less one rounding.
      x[p] = own_x * block.width[p] + load_one(offsets + 2 * p) - R(0.5);
      y[p] = own_y * block.height[p] + load_one(offsets + 2 * p + 1) - R(0.5);
      attention[p] = load_one(logits + p);
    }
    x += points, y += points, attention += points;
    logits += between, offsets += 2 * between;
  }
  normalise<known>(block.attention, points, count);
}

// Works out the places and weights of `count` queries from `q` on. Loops over the points of
// a query are short: unrolled for the models' numbers of them, they cost half as much.
template <typename Stored, typename R, typename Index>
inline void read_points(const Sizes& n, const RawPoints<Stored>& raw, int64_t b, int64_t q, int64_t m, int64_t count,
                        const Block<R, Index>& block) {
  switch (block.points) {
    case 4:
      return read_raw<4>(n, raw, b, q, m, count, block);
    case 12:
      return read_raw<12>(n, raw, b, q, m, count, block);
    default:
      return read_raw<0>(n, raw, b, q, m, count, block);
  }
}
