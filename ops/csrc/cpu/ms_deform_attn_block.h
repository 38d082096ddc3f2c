// Points decoded by the block, for ms_deform_attn_kernel.h and in its namespace.

// Points that are decoded at once: enough for vectors, few enough for the first cache.
constexpr int64_t BLOCK_POINTS = 256;

constexpr int64_t PREFETCHED_QUERIES = 16;

// The values of one head: a row of D numbers for each cell. Copied, they have one more row
// of zeros, which stands for all that is outside of the levels.
template <typename T>
struct Table {
  const T* rows;
  int64_t stride;  // between rows
};

// The points of some consecutive queries of one head, an array for each property.
template <typename R, typename Index>
struct Block {
  int64_t points;      // of a query, L * P
  int64_t queries;     // that fit
  Index zeros;         // row of zeros
  R *width, *height;   // of the point's level
  Index *across, *start;  // the level's width, and its first cell
  R *x, *y, *attention;
  R *share_x, *share_y;
  // The four cells around the point, north-west, north-east, south-west, south-east, and
  // what they weigh, times the attention.
  Index* cell[4];
  R* weight[4];

  static constexpr int arrays_of_real = 11, arrays_of_index = 6;

  static int64_t queries_of(const Sizes& n) {
    const int64_t fitting = BLOCK_POINTS / (n.levels * n.points > 0 ? n.levels * n.points : 1);
    return fitting > 0 ? fitting : 1;
  }

  static int64_t bytes(const Sizes& n) {
    const int64_t count = queries_of(n) * n.levels * n.points;
    return arrays_of_real * Arena::size_of<R>(count) + arrays_of_index * Arena::size_of<Index>(count);
  }

  Block(const Sizes& n, const int64_t* shapes, Arena& arena)
      : points(n.levels * n.points), queries(queries_of(n)), zeros(Index(n.cells)) {
    const int64_t count = queries * points;
    R** const reals[] = {&width, &height, &x, &y, &attention, &share_x, &share_y};
    for (R** array : reals) *array = arena.take<R>(count);
    for (R*& array : weight) array = arena.take<R>(count);
    across = arena.take<Index>(count);
    start = arena.take<Index>(count);
    for (Index*& array : cell) array = arena.take<Index>(count);
    for (int64_t i = 0; i < queries; i++) describe_levels(n, shapes, i * points);
  }

 private:
  void describe_levels(const Sizes& n, const int64_t* shapes, int64_t i) {
    int64_t cells = 0;
    for (int64_t level = 0; level < n.levels; level++) {
      for (int64_t p = 0; p < n.points; p++, i++) {
        height[i] = R(shapes[2 * level]);
        width[i] = R(shapes[2 * level + 1]);
        across[i] = Index(shapes[2 * level + 1]);
        start[i] = Index(cells);
      }
      cells += shapes[2 * level] * shapes[2 * level + 1];
    }
  }
};

// Whether x and y of a block are in cells from the centre of the level's first one, or 0..1
// of the level.
template <typename Points>
constexpr bool in_cells = true;
template <typename T>
constexpr bool in_cells<GivenPoints<T>> = false;

// Takes the locations and weights of `count` queries from `q` on.
template <typename T, typename Index>
inline void read_points(const Sizes& n, const GivenPoints<T>& given, int64_t b, int64_t q, int64_t m, int64_t count,
                        const Block<Real<T>, Index>& block) {
  const int64_t points = block.points, between = n.heads * points;
  const Real<T>* weights = given.weights + point_index(n, b, q, m);
  const Real<T>* locations = given.locations + 2 * point_index(n, b, q, m);
  Real<T> *__restrict x = block.x, *__restrict y = block.y, *__restrict attention = block.attention;
  for (int64_t query = 0; query < count; query++) {
    // The next ones of this head lie behind those of all others.
    __builtin_prefetch(weights + PREFETCHED_QUERIES * between);
    __builtin_prefetch(locations + 2 * PREFETCHED_QUERIES * between);
    for (int64_t p = 0; p < points; p++) {
      x[p] = locations[2 * p];
      y[p] = locations[2 * p + 1];
      attention[p] = weights[p];
    }
    x += points, y += points, attention += points;
    weights += between, locations += 2 * between;
  }
}

template <typename R, typename Index>
struct Decoding {
  using Math = VectorMath<R>;
  static constexpr int lanes = Vector<R>::lanes;
  template <typename X>
  static auto read(const X* from) {
    return load(from);
  }
  template <typename X>
  static void write(X* to, typename Vector<X>::Type numbers) {
    store(to, numbers);
  }
};

// Images of 2^31 cells and more, whose indices are wider than their numbers: one by one.
template <>
struct Decoding<float, int64_t> {
  using Math = ScalarMath<float, int64_t>;
  static constexpr int lanes = 1;
  template <typename X>
  static X read(const X* from) {
    return *from;
  }
  template <typename X>
  static void write(X* to, X number) {
    *to = number;
  }
};

// Decodes the first `count` points, and what follows them up to a whole vector.
template <bool in_cells, typename R, typename Index>
inline void decode(const Block<R, Index>& block, int64_t count) {
  using D = Decoding<R, Index>;
  using Math = typename D::Math;
  for (int64_t i = 0; i < count; i += D::lanes) {
    const auto width = D::read(block.width + i), height = D::read(block.height + i);
    const auto attention = D::read(block.attention + i);
    const auto at_x = D::read(block.x + i), at_y = D::read(block.y + i);
    const Neighbours<Math> x = find_neighbours<Math>(in_cells ? at_x : at_x * width - 0.5f, width);
    const Neighbours<Math> y = find_neighbours<Math>(in_cells ? at_y : at_y * height - 0.5f, height);
    const auto across = D::read(block.across + i), first = D::read(block.start + i) + y.low * across + x.low;
    const auto upper = attention * (1.0f - y.share), lower = attention * y.share;
    const auto left = 1.0f - x.share;
    D::write(block.share_x + i, x.share);
    D::write(block.share_y + i, y.share);
    // A corner outside weighs nothing, even if the attention is not finite.
    const auto write_corner = [&](int corner, auto inside, auto cell, auto weight) __attribute__((always_inline)) {
      D::write(block.cell[corner] + i, inside ? cell : cell * 0 + block.zeros);
      D::write(block.weight[corner] + i, inside ? weight : decltype(weight){});
    };
    write_corner(0, y.has_low & x.has_low, first, upper * left);
    write_corner(1, y.has_low & x.has_high, first + 1, upper * x.share);
    write_corner(2, y.has_high & x.has_low, first + across, lower * left);
    write_corner(3, y.has_high & x.has_high, first + across + 1, lower * x.share);
  }
}
