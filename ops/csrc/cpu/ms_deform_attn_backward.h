// Gradients, for ms_deform_attn_kernel.h and in its namespace.

// What the gradients of one head need besides its points.
template <typename T>
struct HeadGradients {
  Real<T>* rows;        // of the values, as in the table; the row of zeros takes what is dropped
  Real<T>* output;      // of one query, D numbers
  Real<T>* product[4];  // for each point: the values around it times the output's gradient
};

// Product of the values of one cell with the output's gradient; adds the latter, weighted,
// to the gradient of the cell.
template <typename T>
inline Real<T> scatter(const T* value, const Real<T>* grad_output, Real<T> weight, int64_t channels,
                       Real<T>* grad_value) {
  using R = Real<T>;
  constexpr int lanes = Vector<R>::lanes;
  Lanes<R> sums[2] = {};
  int64_t c = 0;
  for (; c + 2 * lanes <= channels; c += 2 * lanes) {
    for (int half = 0; half < 2; half++) {
      const int64_t at = c + half * lanes;
      const Lanes<R> grad = load(grad_output + at);
      sums[half] += load(value + at) * grad;
      store(grad_value + at, load(grad_value + at) + grad * weight);
    }
  }
  if (c + lanes <= channels) {
    const Lanes<R> grad = load(grad_output + c);
    sums[0] += load(value + c) * grad;
    store(grad_value + c, load(grad_value + c) + grad * weight);
    c += lanes;
  }
  R sum = sum_lanes<R>(sums[0] + sums[1]);
  for (; c < channels; c++) {
    sum += load_one(value + c) * grad_output[c];
    grad_value[c] += grad_output[c] * weight;
  }
  return sum;
}

// Gradients of the locations and weights of the first `count` queries of a block.
template <typename T, typename Index>
inline void write_point_gradients(const Block<Real<T>, Index>& block, Real<T>* const product[4], int64_t count,
                                  int64_t between, Real<T>* weights, Real<T>* locations) {
  using R = Real<T>;
  int64_t i = 0;
  for (int64_t query = 0; query < count; query++, weights += between, locations += 2 * between) {
    for (int64_t p = 0; p < block.points; p++, i++) {
      // Out of reach; the products are 0, and yet what they are multiplied by may be infinite.
      if (block.cell[0][i] == block.zeros && block.cell[1][i] == block.zeros &&
          block.cell[2][i] == block.zeros && block.cell[3][i] == block.zeros) {
        weights[p] = locations[2 * p] = locations[2 * p + 1] = 0;
        continue;
      }
      // Products outside of the level are 0, which leaves the slope of its rim.
      const R right = block.share_x[i], left = R(1) - right, lower = block.share_y[i], upper = R(1) - lower;
      const R p0 = product[0][i], p1 = product[1][i], p2 = product[2][i], p3 = product[3][i];
      weights[p] = upper * (left * p0 + right * p1) + lower * (left * p2 + right * p3);
      locations[2 * p] = block.width[i] * block.attention[i] * (upper * (p1 - p0) + lower * (p3 - p2));
      locations[2 * p + 1] = block.height[i] * block.attention[i] * (left * (p2 - p0) + right * (p3 - p1));
    }
  }
}

template <typename T, typename Index>
inline void backward_head(const Sizes& n, const GivenPoints<T>& points, const Gradients<T>& grad, int64_t b, int64_t m,
                          const Block<Real<T>, Index>& block, const Table<T>& table,
                          const HeadGradients<T>& own) {
  for (int64_t q = 0; q < n.queries; q += block.queries) {
    const int64_t count = q + block.queries < n.queries ? block.queries : n.queries - q;
    read_points(n, points, b, q, m, count, block);
    decode<false>(block, count * block.points);
    for (int64_t query = 0; query < count; query++) {
      const T* row = grad.output + output_index(n, b, q + query, m);
      for (int64_t c = 0; c < n.channels; c++) own.output[c] = load_one(row + c);
      for (int64_t i = query * block.points; i < (query + 1) * block.points; i++)
        for (int corner = 0; corner < 4; corner++) {
          const int64_t at = int64_t(block.cell[corner][i]) * table.stride;
          own.product[corner][i] =
              scatter(table.rows + at, own.output, block.weight[corner][i], n.channels, own.rows + at);
        }
    }
    const int64_t first = point_index(n, b, q, m);
    write_point_gradients<T>(block, own.product, count, n.heads * block.points, grad.weights + first,
                             grad.locations + 2 * first);
  }
}

template <typename T>
inline void unpack(const Sizes& n, int64_t b, int64_t m, const Real<T>* rows, T* grad_value) {
  constexpr int lanes = Vector<Real<T>>::lanes;
  T* to = grad_value + value_index(n, b, 0, m);
  for (int64_t cell = 0; cell < n.cells; cell++, to += n.heads * n.channels, rows += n.channels) {
    int64_t c = 0;
    for (; c + lanes <= n.channels; c += lanes) store(to + c, load(rows + c));
    for (; c < n.channels; c++) store_one(to + c, rows[c]);
  }
}

template <typename T, typename Index>
inline void backward_heads(const Inputs<T>& in, const GivenPoints<T>& points, const Gradients<T>& grad, int64_t begin,
                           int64_t end, void* memory) {
  using R = Real<T>;
  const Sizes& n = in.sizes;
  const int64_t size = (n.cells + 1) * n.channels;
  Arena arena(memory);
  T* rows = arena.take<T>(size);
  HeadGradients<T> own;
  own.rows = arena.take<R>(size);
  own.output = arena.take<R>(n.channels);
  const Block<R, Index> block(n, in.shapes, arena);
  for (R*& array : own.product) array = arena.take<R>(block.queries * block.points);
  const Table<T> table{rows, n.channels};
  for (int64_t head = begin; head < end; head++) {
    const int64_t b = head / n.heads, m = head % n.heads;
    pack(in, b, m, rows);
    std::memset(own.rows, 0, size * sizeof(R));
    backward_head(n, points, grad, b, m, block, table, own);
    unpack(n, b, m, own.rows, grad.value);
  }
}

template <typename T>
void backward(const Inputs<T>& in, const GivenPoints<T>& points, const Gradients<T>& grad, int64_t begin, int64_t end,
              void* memory) {
  if (is_small(in.sizes))
    backward_heads<T, NaturalIndex<Real<T>>>(in, points, grad, begin, end, memory);
  else
    backward_heads<T, int64_t>(in, points, grad, begin, end, memory);
}

template <typename T>
int64_t backward_bytes(const Sizes& n) {
  using R = Real<T>;
  const int64_t size = (n.cells + 1) * n.channels;
  const int64_t points = Block<R, int64_t>::queries_of(n) * n.levels * n.points;
  return Arena::size_of<T>(size) + Arena::size_of<R>(size) + Arena::size_of<R>(n.channels) +
         4 * Arena::size_of<R>(points) + Block<R, int64_t>::bytes(n);
}
