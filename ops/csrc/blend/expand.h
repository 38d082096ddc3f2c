// Strips of the output and the enlarged rows of tiles in them, for kernel.h and in its
// namespace.

constexpr int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t whole_vectors(int64_t count) { return (count + LANES - 1) / LANES; }

// How a problem is cut into strips, and what memory one needs.
struct Layout {
  int64_t vectors;  // of a row of a strip
  int64_t row;      // numbers of an enlarged row: (vectors, classes, LANES)
  int64_t across;   // tiles that touch a strip in a row of them, at most
  int64_t layers;
  int64_t pitch;  // source pixels of one class that a tile gives to a strip, at most

  explicit Layout(const Problem& p) {
    // Enlarged rows that lie in the second cache, some of them at a time.
    constexpr int64_t bytes = 64 << 10;
    vectors = most(1, bytes / int64_t(sizeof(float)) / (p.classes * LANES));
    vectors = least(vectors, whole_vectors(p.width));
    row = vectors * p.classes * LANES;
    across = 0;
    for (int64_t col = p.col; col < p.col + p.width; col += vectors * LANES) {
      int64_t touching = 0;
      for (int64_t b = 0; b < p.cols.count; b++)
        touching += p.cols.starts[b] < col + vectors * LANES && p.cols.stops[b] > col;
      across = most(across, touching);
    }
    layers = p.rows.count * (p.probabilities ? across : 1);
    pitch = least(p.side, vectors * LANES * p.side / (p.length - 2 * PADDING) + 3) + 2 * LANES;
  }

  static int64_t bytes(const Problem& p);
};

// Columns of the output.
struct Strip {
  int64_t col, width, vectors;

  int64_t stop() const { return col + width; }
};

// The tiles [begin, end) of a row of tiles, enlarged along the strip.
struct Layer {
  int64_t tile_row, begin, end;
  int64_t first, last;  // vectors of the strip that they touch
  float* rows[2];       // enlarged rows of even and odd source rows
  int64_t held[2];      // which those are, -1: none
  float* weights;       // sum of the tiles' weights by column, (vectors * LANES,)
  bool whole;           // whether it is above 0 in all columns
};

inline const void* tile_of(const Problem& p, int64_t a, int64_t b) { return p.tiles[a * p.cols.count + b]; }

// Vectors of the strip in which a tile has weight: [first, last).
inline void find_vectors(const Problem& p, const Strip& strip, int64_t b, int64_t& first, int64_t& last) {
  first = (most(p.cols.starts[b], strip.col) - strip.col) / LANES;
  last = whole_vectors(least(p.cols.stops[b], strip.stop()) - strip.col);
}

// Where a table of tile `b` has what belongs to the first pixel of a vector.
inline int64_t place_of(const Problem& p, const Strip& strip, int64_t b, int64_t vector) {
  return strip.col + vector * LANES - p.cols.origins[b] + PADDING;
}

typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Reals widen(const uint16_t* from) {
#if GEOSEG_VECTOR_BYTES == 64
  return Reals(_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
#elif GEOSEG_VECTOR_BYTES == 32
  return Reals(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
  // Exact for all finite numbers: what is subnormal in float16 is not after the product.
  const Words bits = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words);
  const Words magnitude = (bits & 0x7fff) << 13;
  const Reals scaled = reinterpret_cast<const Reals&>(magnitude) * 0x1p112f;
  const Words result = reinterpret_cast<const Words&>(scaled) | (bits & 0x8000) << 16;
  return reinterpret_cast<const Reals&>(result);
#endif
}

inline Reals widen(const float* from) { return load(from); }

inline void widen_row(const uint16_t* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, widen(from + i));
  if (i == count) return;
  uint16_t rest[LANES] = {};
  std::memcpy(rest, from + i, (count - i) * sizeof(uint16_t));
  // What this writes too much is behind the row.
  store(to + i, widen(rest));
}

// Lanes of `numbers` by index, 0..LANES - 1.
inline Reals pick(Reals numbers, Integers index) {
#if GEOSEG_VECTOR_BYTES == 64
  // With a mask of ones, as GCC warns of its own header else.
  return Reals(_mm512_maskz_permutexvar_ps(0xffff, __m512i(index), __m512(numbers)));
#elif GEOSEG_VECTOR_BYTES == 32
  return Reals(_mm256_permutevar8x32_ps(__m256(numbers), __m256i(index)));
#else
  Reals picked;
  for (int lane = 0; lane < LANES; lane++) picked[lane] = numbers[index[lane]];
  return picked;
#endif
}

// Copies the pixels [first, first + count) of a source row of all classes, and once more the
// last one behind the row's end: there, the next pixel is the same.
inline void read_sources(const Problem& p, const void* tile, int64_t source_row, int64_t first, int64_t count,
                         int64_t pitch, float* to) {
  for (int64_t k = 0; k < p.classes; k++, to += pitch) {
    const int64_t at = (k * p.side + source_row) * p.side + first;
    if (p.half)
      widen_row(static_cast<const uint16_t*>(tile) + at, count, to);
    else
      std::memcpy(to, static_cast<const float*>(tile) + at, count * sizeof(float));
    to[count] = to[count - 1];
  }
}

// Pixels [pixel, pixel + LANES) of a source row, 0 outside of it.
template <typename Stored>
inline Reals read_pixels(const Stored* row, int64_t pixel, int64_t side) {
  if (pixel >= 0 && pixel + LANES <= side) return widen(row + pixel);
  const int64_t begin = most(pixel, 0), end = least(pixel + LANES, side);
  Stored own[LANES] = {};
  std::memcpy(own + begin - pixel, row + begin, (end - begin) * sizeof(Stored));
  return widen(own);
}

// Writes the vectors [first, last) of a source row of one tile, weighted, or adds them to the
// row: each pixel is a source pixel, and the next one contributes nothing.
template <int known, bool add, typename Stored>
inline void copy_vectors(const Problem& p, const Strip& strip, int64_t b, int64_t first, int64_t last,
                         const Stored* from, float* row) {
  const int64_t classes = known ? known : p.classes, plane = p.side * p.side;
  for (int64_t v = first; v < last; v++) {
    const int64_t place = place_of(p, strip, b, v);
    const Reals share = load(p.cols.low_shares + b * p.length + place);
    float* to = row + v * classes * LANES;
    for (int64_t k = 0; k < classes; k++, to += LANES) {
      const Reals value = read_pixels(from + k * plane, place - PADDING, p.side) * share;
      store(to, add ? load(to) + value : value);
    }
  }
}

// The same with a tile that is enlarged. `sources` begin at the pixel `begin`.
template <int known, bool add>
inline void expand_vectors(const Problem& p, const Strip& strip, int64_t pitch, int64_t b, int64_t first, int64_t last,
                           const float* sources, int64_t begin, float* row) {
  const int64_t classes = known ? known : p.classes;
  for (int64_t v = first; v < last; v++) {
    const int64_t place = place_of(p, strip, b, v), entry = b * p.length + place;
    const int64_t source = p.sources[place];
    const Reals low_share = load(p.cols.low_shares + entry), high_share = load(p.cols.high_shares + entry);
    const Integers index = load(p.sources + place) - int32_t(source);
    const float* from = sources + source - begin;
    float* to = row + v * classes * LANES;
    for (int64_t k = 0; k < classes; k++, from += pitch, to += LANES) {
      const Reals value = pick(load(from), index) * low_share + pick(load(from + 1), index) * high_share;
      store(to, add ? load(to) + value : value);
    }
  }
}

template <int known, bool add>
inline void write_vectors(const Problem& p, const Layout& layout, const Strip& strip, const Layer& layer, int64_t b,
                          int64_t source_row, int64_t first, int64_t last, float* sources, float* row) {
  if (first == last) return;
  const void* tile = tile_of(p, layer.tile_row, b);
  if (p.length - 2 * PADDING > p.side) {
    const int64_t begin = p.sources[place_of(p, strip, b, first)];
    const int64_t end = least(p.sources[place_of(p, strip, b, last) - 1] + 2, p.side);
    read_sources(p, tile, source_row, begin, end - begin, layout.pitch, sources);
    expand_vectors<known, add>(p, strip, layout.pitch, b, first, last, sources, begin, row);
  } else if (p.half) {
    copy_vectors<known, add>(p, strip, b, first, last, static_cast<const uint16_t*>(tile) + source_row * p.side, row);
  } else {
    copy_vectors<known, add>(p, strip, b, first, last, static_cast<const float*>(tile) + source_row * p.side, row);
  }
}

// The enlarged source row of a layer, made unless it is still there.
template <int known>
inline const float* enlarged_row(const Problem& p, const Layout& layout, const Strip& strip, Layer& layer,
                                 int64_t source_row, float* sources) {
  const int64_t slot = source_row % 2, vector = (known ? known : p.classes) * LANES;
  float* row = layer.rows[slot];
  if (layer.held[slot] == source_row) return row;
  int64_t written = 0;  // vectors, from the left: tiles begin and end in their order
  for (int64_t b = layer.begin; b < layer.end; b++) {
    if (!tile_of(p, layer.tile_row, b)) continue;
    int64_t first, last;
    find_vectors(p, strip, b, first, last);
    if (written < first) std::memset(row + written * vector, 0, (first - written) * vector * sizeof(float));
    const int64_t fresh = most(first, least(written, last));
    write_vectors<known, true>(p, layout, strip, layer, b, source_row, first, fresh, sources, row);
    write_vectors<known, false>(p, layout, strip, layer, b, source_row, fresh, last, sources, row);
    written = most(written, last);
  }
  std::memset(row + written * vector, 0, (layout.vectors - written) * vector * sizeof(float));
  layer.held[slot] = source_row;
  return row;
}

// Prepares a layer's weights and extent for a strip; false if no tile of it touches it.
inline bool begin_layer(const Problem& p, const Layout& layout, const Strip& strip, Layer& layer) {
  layer.first = layout.vectors, layer.last = 0;
  layer.held[0] = layer.held[1] = -1;
  std::memset(layer.weights, 0, layout.vectors * LANES * sizeof(float));
  for (int64_t b = layer.begin; b < layer.end; b++) {
    if (!tile_of(p, layer.tile_row, b)) continue;
    int64_t first, last;
    find_vectors(p, strip, b, first, last);
    for (int64_t v = first; v < last; v++) {
      float* sum = layer.weights + v * LANES;
      store(sum, load(sum) + load(p.cols.weights + b * p.length + place_of(p, strip, b, v)));
    }
    layer.first = least(layer.first, first), layer.last = most(layer.last, last);
  }
  layer.whole = true;
  for (int64_t x = 0; x < strip.width; x++) layer.whole &= layer.weights[x] > 0;
  return layer.first < layer.last;
}
