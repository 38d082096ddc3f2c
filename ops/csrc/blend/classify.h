// Rows of the output: weighted sums, class and confidence, for kernel.h and in its namespace.

// What a layer contributes to one row of the output.
struct Part {
  const float *low, *high;  // enlarged rows of the source; nullptr: contributes nothing
  float low_share, high_share, weight;
  const float* weights;  // by column
  int64_t first, last;   // vectors of the strip
};

// A number 0..255 as the nearest integer, ties to even, in the lowest byte.
inline Integers round_small(Reals numbers) {
  const Reals shifted = numbers + 0x1.8p23f;
  return reinterpret_cast<const Integers&>(shifted);
}

// Writes the lowest byte of each lane. Of its own, GCC takes lanes out one by one.
inline void write_bytes(Integers numbers, uint8_t* to) {
#if GEOSEG_VECTOR_BYTES == 64
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_maskz_cvtepi32_epi8(0xffff, __m512i(numbers)));
#elif GEOSEG_VECTOR_BYTES == 32
  const __m256i lowest = _mm256_set1_epi32(0x0c080400);
  const __m256i halves = _mm256_shuffle_epi8(__m256i(numbers), lowest);
  const int32_t words[2] = {_mm256_extract_epi32(halves, 0), _mm256_extract_epi32(halves, 4)};
  std::memcpy(to, words, sizeof words);
#else
  for (int lane = 0; lane < LANES; lane++) to[lane] = uint8_t(numbers[lane]);
#endif
}

inline bool any(const uint8_t* bytes, int64_t count) {
  int64_t i = 0;
  uint64_t found = 0;
  for (; i + 8 <= count; i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes + i, 8);
    found |= word;
  }
  for (; i < count; i++) found |= bytes[i];
  return found != 0;
}

// Where `keep` is not 0 the bytes, elsewhere the other one.
inline void select_bytes(const uint8_t* __restrict keep, const uint8_t* __restrict bytes, uint8_t other, int64_t count,
                         uint8_t* __restrict to) {
  for (int64_t i = 0; i < count; i++) to[i] = keep[i] ? bytes[i] : other;
}

// Memory is that of the caller; `known` is the number of classes, or 0.
template <int known, bool probabilities>
class Blending {
 public:
  Blending(const Problem& problem, void* memory) : p_(problem), layout_(problem) {
    Arena arena(memory);
    layers_ = arena.take<Layer>(layout_.layers);
    parts_ = arena.take<Part>(layout_.layers);
    for (int64_t i = 0; i < layout_.layers; i++) {
      for (float*& row : layers_[i].rows) row = arena.take<float>(layout_.row);
      layers_[i].weights = arena.take<float>(layout_.vectors * LANES);
    }
    sources_ = arena.take<float>(p_.classes * layout_.pitch);
    values_ = arena.take<float>(p_.classes * LANES);
    ids_ = arena.take<int32_t>(p_.classes * LANES);
    for (int64_t i = 0; i < p_.classes * LANES; i++) ids_[i] = p_.ids[i / LANES];
    totals_ = arena.take<float>(probabilities ? layout_.row : 0);
    weight_sums_ = arena.take<float>(probabilities ? layout_.vectors * LANES : 0);
    keep_ = arena.take<uint8_t>(layout_.vectors * LANES);
    scores_ = arena.take<uint8_t>(p_.scores ? p_.classes * layout_.vectors * LANES : 0);
    covered_ = arena.take<uint8_t>(layout_.vectors * LANES);
    mask_ = arena.take<uint8_t>(layout_.vectors * LANES);
    confidence_ = arena.take<uint8_t>(layout_.vectors * LANES);
  }

  bool run() {
    for (int64_t col = p_.col; col < p_.col + p_.width; col += layout_.vectors * LANES) {
      strip_.col = col;
      strip_.width = least(layout_.vectors * LANES, p_.col + p_.width - col);
      strip_.vectors = whole_vectors(strip_.width);
      begin_strip();
      for (int64_t row = p_.row; row < p_.row + p_.height; row++) blend_row(row);
    }
    return !uncovered_;
  }

 private:
  int64_t classes() const { return known ? known : p_.classes; }

  void begin_strip() {
    used_ = 0;
    for (int64_t a = 0; a < p_.rows.count; a++) {
      if (!probabilities) begin_layer_of(a, 0, p_.cols.count);
      // A softmax is of one tile.
      for (int64_t b = 0; probabilities && b < p_.cols.count; b++) begin_layer_of(a, b, b + 1);
    }
  }

  void begin_layer_of(int64_t a, int64_t begin, int64_t end) {
    while (begin < end && p_.cols.stops[begin] <= strip_.col) begin++;
    while (begin < end && p_.cols.starts[end - 1] >= strip_.stop()) end--;
    if (begin == end) return;
    Layer& layer = layers_[used_];
    layer.tile_row = a, layer.begin = begin, layer.end = end;
    if (begin_layer(p_, layout_, strip_, layer)) used_++;
  }

  void blend_row(int64_t row) {
    const int64_t at = (row - p_.row) * p_.width + strip_.col - p_.col;
    if (any(p_.keep + at, strip_.width)) {
      std::memset(keep_ + (strip_.vectors - 1) * LANES, 0, LANES);
      std::memcpy(keep_, p_.keep + at, strip_.width);
      find_parts(row);
      if (probabilities) add_probabilities();
      for (int64_t v = 0; v < strip_.vectors; v++) finish_vector(v);
      write_row(at);
    } else {
      std::memset(p_.mask + at, p_.nodata, strip_.width);
      if (p_.confidence) std::memset(p_.confidence + at, p_.nodata, strip_.width);
      for (int64_t k = 0; p_.scores && k < classes(); k++) std::memset(score_row(k, at), p_.nodata, strip_.width);
    }
  }

  uint8_t* score_row(int64_t k, int64_t at) const { return p_.scores + k * p_.height * p_.width + at; }

  // Writes what is wanted of a finished row, and tells of pixels wanted where no tile lies.
  void write_row(int64_t at) {
    select_bytes(keep_, mask_, p_.nodata, strip_.width, p_.mask + at);
    if (p_.confidence) select_bytes(keep_, confidence_, p_.nodata, strip_.width, p_.confidence + at);
    for (int64_t k = 0; p_.scores && k < classes(); k++)
      select_bytes(keep_, scores_ + k * layout_.vectors * LANES, p_.nodata, strip_.width, score_row(k, at));
    if (all_covered_) return;
    uint8_t uncovered = 0;
    const uint8_t *keep = keep_, *covered = covered_;
    for (int64_t x = 0, width = strip_.width; x < width; x++) uncovered |= keep[x] & ~covered[x];
    uncovered_ |= uncovered != 0;
  }

  void find_parts(int64_t row) {
    part_count_ = 0;
    all_covered_ = false;
    for (int64_t i = 0; i < used_; i++) {
      Layer& layer = layers_[i];
      const int64_t a = layer.tile_row, place = row - p_.rows.origins[a] + PADDING, entry = a * p_.length + place;
      if (row < p_.rows.starts[a] || row >= p_.rows.stops[a]) continue;
      const int64_t source = p_.sources[place], next = least(source + 1, p_.side - 1);
      const float* low = enlarged_row<known>(p_, layout_, strip_, layer, source, sources_);
      all_covered_ |= layer.whole && p_.rows.weights[entry] > 0;
      const float high_share = p_.rows.high_shares[entry];
      const float* high = high_share ? enlarged_row<known>(p_, layout_, strip_, layer, next, sources_) : nullptr;
      parts_[part_count_++] = {low, high, p_.rows.low_shares[entry], high_share, p_.rows.weights[entry],
                               layer.weights, layer.first, layer.last};
    }
  }

  // Calls `take` with each class and its value in a vector of a part.
  template <typename Take>
  void interpolate(const Part& part, int64_t v, const Take& take) const {
    const int64_t at = v * classes() * LANES;
    const float* low = part.low + at;
    if (part.high) {
      const float* high = part.high + at;
      for (int64_t k = 0; k < classes(); k++)
        take(k, load(low + k * LANES) * part.low_share + load(high + k * LANES) * part.high_share);
    } else {
      for (int64_t k = 0; k < classes(); k++) take(k, load(low + k * LANES) * part.low_share);
    }
  }

  static Reals weight_of(const Part& part, int64_t v) { return load(part.weights + v * LANES) * part.weight; }

  // Adds the weighted softmax of each part to the totals.
  void add_probabilities() {
    std::memset(totals_, 0, layout_.row * sizeof(float));
    std::memset(weight_sums_, 0, layout_.vectors * LANES * sizeof(float));
    for (int64_t i = 0; i < part_count_; i++)
      for (int64_t v = parts_[i].first; v < parts_[i].last; v++)
        if (any(keep_ + v * LANES, LANES)) add_softmax(parts_[i], v);
  }

  void add_softmax(const Part& part, int64_t v) {
    Reals own[known ? known : 1];
    Reals* const values = known ? own : reinterpret_cast<Reals*>(values_);
    interpolate(part, v, [&](int64_t k, Reals value) { values[k] = value; });
    Reals best = values[0];
    for (int64_t k = 1; k < classes(); k++) best = larger(best, values[k]);
    Reals norm = {};
    for (int64_t k = 0; k < classes(); k++) norm += values[k] = exponential<5>((values[k] - best) * UNIT);
    const Reals weight = weight_of(part, v), share = weight / norm;
    float* total = totals_ + v * classes() * LANES;
    for (int64_t k = 0; k < classes(); k++, total += LANES) store(total, load(total) + values[k] * share);
    store(weight_sums_ + v * LANES, load(weight_sums_ + v * LANES) + weight);
  }

  // Fills `values` with weighted sums, and returns the sum of the weights.
  Reals sum_parts(int64_t v, Reals* values) const {
    if (probabilities) {
      for (int64_t k = 0; k < classes(); k++) values[k] = load(totals_ + (v * classes() + k) * LANES);
      return load(weight_sums_ + v * LANES);
    }
    interpolate(parts_[0], v, [&](int64_t k, Reals value) { values[k] = value; });
    Reals weight = weight_of(parts_[0], v);
    for (int64_t i = 1; i < part_count_; i++) {
      interpolate(parts_[i], v, [&](int64_t k, Reals value) { values[k] += value; });
      weight += weight_of(parts_[i], v);
    }
    return weight;
  }

  void finish_vector(int64_t v) {
    if (!any(keep_ + v * LANES, LANES)) return;
    if (part_count_ == 0) {
      std::memset(covered_ + v * LANES, 0, LANES);
      return;
    }
    Reals own[known ? known : 1];
    classify(v, known ? own : reinterpret_cast<Reals*>(values_));
  }

  void classify(int64_t v, Reals* values) {
    const Reals weight = sum_parts(v, values);
    const Integers covered = weight > 0.0f;
    Reals best = values[0];
    Integers id = load(ids_);
    for (int64_t k = 1; k < classes(); k++) {
      id = values[k] > best ? load(ids_ + k * LANES) : id;
      best = larger(best, values[k]);
    }
    if (!all_covered_) write_bytes(covered, covered_ + v * LANES);
    write_bytes(id, mask_ + v * LANES);
    if (!p_.confidence && !p_.scores) return;
    const Reals rate = rate_values(values, best, covered ? weight : Reals{} + 1.0f);
    const Reals confidence = probabilities ? best * rate : rate;
    write_bytes(round_small(confidence), confidence_ + v * LANES);
    for (int64_t k = 0; p_.scores && k < classes(); k++)
      write_bytes(round_small(values[k] * rate), scores_ + (k * layout_.vectors + v) * LANES);
  }

  // Makes values in proportion to the classes' scores, and returns the percent of 1 of them.
  // They are weighted sums: to divide them by the sum of the weights is to scale their
  // differences. The largest logit becomes 1.
  Reals rate_values(Reals* values, Reals best, Reals weight) const {
    Reals sum = {};
    if (probabilities) {
      for (int64_t k = 0; k < classes(); k++) sum += values[k];
      const Integers known_sum = sum > 0.0f;
      return known_sum ? 100.0f / sum : Reals{};
    }
    const Reals scale = UNIT / weight;
    for (int64_t k = 0; k < classes(); k++) sum += values[k] = exponential<4>((values[k] - best) * scale);
    return 100.0f / sum;
  }

  const Problem& p_;
  const Layout layout_;
  Strip strip_ = {};
  Layer* layers_;
  int64_t used_ = 0;  // of them
  Part* parts_;
  int64_t part_count_ = 0;
  float *sources_, *values_, *totals_, *weight_sums_;
  int32_t* ids_;  // a vector for each class
  // A row of the strip, in whole vectors; covered where a tile lies.
  uint8_t *keep_, *covered_, *mask_, *confidence_, *scores_;
  bool all_covered_ = false;  // in this row of the strip
  bool uncovered_ = false;
};

int64_t Layout::bytes(const Problem& p) {
  const Layout layout(p);
  const int64_t columns = layout.vectors * LANES;
  const int64_t layer = 2 * Arena::size_of<float>(layout.row) + Arena::size_of<float>(columns);
  return Arena::size_of<Layer>(layout.layers) + Arena::size_of<Part>(layout.layers) + layout.layers * layer +
         Arena::size_of<float>(p.classes * layout.pitch) + 2 * Arena::size_of<float>(p.classes * LANES) +
         Arena::size_of<float>(p.probabilities ? layout.row : 0) +
         Arena::size_of<float>(p.probabilities ? columns : 0) + 4 * Arena::size_of<uint8_t>(columns) +
         Arena::size_of<uint8_t>(p.scores ? p.classes * columns : 0);
}
