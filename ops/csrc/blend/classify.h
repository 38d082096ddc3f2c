// Rows of the output: weighted sums, class and confidence, for kernel.h and in its namespace.

// What a layer contributes to one row of the output.
struct Part {
  const float *low, *high;  // enlarged rows of the source
  float low_share, high_share, weight;
  const float* weights;  // by column
  int64_t first, last;   // vectors of the strip
};

constexpr float LOG2_E = 0x1.715476p0f;

// A number 0..255 or so as the nearest integer, ties to even.
inline Integers round_small(Reals numbers) {
  const Reals shifted = numbers + 0x1.8p23f;
  return reinterpret_cast<const Integers&>(shifted) & 0x1ff;
}

typedef uint8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

inline bool any(Integers lanes) {
  int64_t words[LANES / 2], found = 0;
  std::memcpy(words, &lanes, sizeof words);
  for (const int64_t word : words) found |= word;
  return found != 0;
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
    totals_ = arena.take<float>(probabilities ? layout_.row : 0);
    weight_sums_ = arena.take<float>(probabilities ? layout_.vectors * LANES : 0);
    keep_ = arena.take<uint8_t>(layout_.vectors * LANES);
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
    return !any(uncovered_);
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
      std::memcpy(p_.mask + at, mask_, strip_.width);
      if (p_.confidence) std::memcpy(p_.confidence + at, confidence_, strip_.width);
    } else {
      std::memset(p_.mask + at, p_.nodata, strip_.width);
      if (p_.confidence) std::memset(p_.confidence + at, p_.nodata, strip_.width);
    }
  }

  void find_parts(int64_t row) {
    part_count_ = 0;
    for (int64_t i = 0; i < used_; i++) {
      Layer& layer = layers_[i];
      const int64_t a = layer.tile_row, place = row - p_.rows.origins[a] + PADDING, entry = a * p_.length + place;
      if (row < p_.rows.starts[a] || row >= p_.rows.stops[a]) continue;
      const int64_t source = p_.sources[place], next = least(source + 1, p_.side - 1);
      const float* low = enlarged_row<known>(p_, layout_, strip_, layer, source, sources_);
      const float* high = enlarged_row<known>(p_, layout_, strip_, layer, next, sources_);
      parts_[part_count_++] = {low, high, p_.rows.low_shares[entry], p_.rows.high_shares[entry],
                               p_.rows.weights[entry], layer.weights, layer.first, layer.last};
    }
  }

  // The value of class `k` in a vector of a part.
  Reals interpolate(const Part& part, int64_t v, int64_t k) const {
    const int64_t at = (v * classes() + k) * LANES;
    return load(part.low + at) * part.low_share + load(part.high + at) * part.high_share;
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
    Reals best = values[0] = interpolate(part, v, 0);
    for (int64_t k = 1; k < classes(); k++) {
      values[k] = interpolate(part, v, k);
      best = values[k] > best ? values[k] : best;
    }
    Reals norm = {};
    for (int64_t k = 0; k < classes(); k++) norm += values[k] = exp2_of_negative((values[k] - best) * LOG2_E);
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
    const Part& first = parts_[0];
    for (int64_t k = 0; k < classes(); k++) values[k] = interpolate(first, v, k);
    Reals weight = weight_of(first, v);
    for (int64_t i = 1; i < part_count_; i++) {
      for (int64_t k = 0; k < classes(); k++) values[k] += interpolate(parts_[i], v, k);
      weight += weight_of(parts_[i], v);
    }
    return weight;
  }

  void finish_vector(int64_t v) {
    if (!any(keep_ + v * LANES, LANES) || part_count_ == 0) {
      // A pixel wanted where no tile lies is told, and has no class.
      uncovered_ |= __builtin_convertvector(*reinterpret_cast<const Bytes*>(keep_ + v * LANES), Integers);
      std::memset(mask_ + v * LANES, p_.nodata, LANES);
      std::memset(confidence_ + v * LANES, p_.nodata, LANES);
      return;
    }
    Reals own[known ? known : 1];
    classify(v, known ? own : reinterpret_cast<Reals*>(values_));
  }

  void classify(int64_t v, Reals* values) {
    const Reals weight = sum_parts(v, values);
    const Integers covered = weight > 0.0f;
    const Reals scale = 1.0f / (covered ? weight : Reals{} + 1.0f);
    Reals best = values[0] = values[0] * scale;
    Integers id = Integers{} + p_.ids[0];
    for (int64_t k = 1; k < classes(); k++) {
      values[k] *= scale;
      const Integers greater = values[k] > best;
      best = greater ? values[k] : best;
      id = greater ? Integers{} + p_.ids[k] : id;
    }
    const Integers keep = __builtin_convertvector(*reinterpret_cast<const Bytes*>(keep_ + v * LANES), Integers) != 0;
    uncovered_ |= keep & ~covered;
    write(keep ? id : Integers{} + p_.nodata, mask_ + v * LANES);
    if (!p_.confidence) return;
    const Integers percent = round_small(confidence_of(values, best));
    write(keep ? percent : Integers{} + p_.nodata, confidence_ + v * LANES);
  }

  // Percent: the largest softmax, or the largest probability over their sum.
  Reals confidence_of(const Reals* values, Reals best) const {
    Reals sum = {};
    for (int64_t k = 0; k < classes(); k++)
      sum += probabilities ? values[k] : exp2_of_negative((values[k] - best) * LOG2_E);
    if (!probabilities) return 100.0f / sum;
    const Integers known_sum = sum > 0.0f;
    return known_sum ? best / sum * 100.0f : Reals{};
  }

  static void write(Integers numbers, uint8_t* to) {
    *reinterpret_cast<Bytes*>(to) = __builtin_convertvector(numbers, Bytes);
  }

  const Problem& p_;
  const Layout layout_;
  Strip strip_ = {};
  Layer* layers_;
  int64_t used_ = 0;  // of them
  Part* parts_;
  int64_t part_count_ = 0;
  float *sources_, *values_, *totals_, *weight_sums_;
  uint8_t *keep_, *mask_, *confidence_;  // a row of the strip, in whole vectors
  Integers uncovered_ = {};
};

int64_t Layout::bytes(const Problem& p) {
  const Layout layout(p);
  const int64_t columns = layout.vectors * LANES;
  const int64_t layer = 2 * Arena::size_of<float>(layout.row) + Arena::size_of<float>(columns);
  return Arena::size_of<Layer>(layout.layers) + Arena::size_of<Part>(layout.layers) + layout.layers * layer +
         Arena::size_of<float>(p.classes * layout.pitch) + Arena::size_of<float>(p.classes * LANES) +
         Arena::size_of<float>(p.probabilities ? layout.row : 0) +
         Arena::size_of<float>(p.probabilities ? columns : 0) + 3 * Arena::size_of<uint8_t>(columns);
}
