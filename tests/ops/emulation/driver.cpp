// Runs one call of the CUDA kernels of GEOSEG_DTYPE on files: driver FOLDER. The folder holds
// request.txt (see `read_request`) and one raw file for each array, NAME.bin; results are
// written beside them. Arrays are exactly as long as their file, so that the sanitizer
// sees every step beyond.
#include <cuda_runtime.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "../../../ops/csrc/cuda/ms_deform_attn.h"

using namespace geoseg;
using namespace geoseg::cuda;

namespace {

struct Request {
  std::string call;
  Shape shape;
  Levels levels, grid;
  bool deterministic, narrow;
};

std::string folder;

void check(bool fine, const std::string& what) {
  if (fine) return;
  std::fprintf(stderr, "driver: %s\n", what.c_str());
  std::exit(64);
}

Levels read_levels(std::istream& text) {
  Levels levels = {};
  text >> levels.count;
  int start = 0;
  for (int level = 0; level < levels.count; level++) {
    text >> levels.height[level] >> levels.width[level];
    levels.start[level] = start;
    start += levels.height[level] * levels.width[level];
  }
  return levels;
}

Request read_request() {
  std::ifstream text(folder + "/request.txt");
  Request request = {};
  Shape& shape = request.shape;
  text >> request.call >> shape.batch >> shape.cells >> shape.heads >> shape.channels;
  text >> shape.queries >> shape.points >> request.deterministic >> emulation::order >> request.narrow;
  request.levels = read_levels(text);
  request.grid = read_levels(text);
  check(bool(text), "request.txt is incomplete");
  return request;
}

// An array as on a GPU: aligned, and nothing after its end may be touched.
template <typename E>
struct Array {
  E* data = nullptr;
  size_t bytes;

  explicit Array(size_t count) : bytes(count * sizeof(E)) {
    check(posix_memalign(reinterpret_cast<void**>(&data), 256, bytes) == 0, "no memory");
    std::memset(static_cast<void*>(data), 0xff, bytes);  // NaN, if it is never written
  }
  Array(const Array&) = delete;
  ~Array() { std::free(data); }

  void save(const std::string& name) const {
    std::ofstream file(folder + "/" + name + ".bin", std::ios::binary);
    file.write(reinterpret_cast<const char*>(data), std::streamsize(bytes));
  }
};

template <typename E>
struct Loaded : Array<E> {
  Loaded(const std::string& name, size_t count) : Array<E>(count) {
    std::ifstream file(folder + "/" + name + ".bin", std::ios::binary);
    const std::vector<char> content{std::istreambuf_iterator<char>(file), {}};
    check(content.size() == this->bytes, name + ".bin has another size than the request says");
    if (!content.empty()) std::memcpy(static_cast<void*>(this->data), content.data(), content.size());
  }
};

struct Counts {
  size_t value, points, output;
  explicit Counts(const Request& r)
      : value(r.shape.batch * r.shape.cells * r.shape.heads * r.shape.channels),
        points(r.shape.batch * r.shape.queries * r.shape.heads * r.levels.count * r.shape.points),
        output(r.shape.batch * r.shape.queries * r.shape.heads * r.shape.channels) {}
};

template <typename T>
int run_forward(const Request& r, const Counts& n) {
  const Loaded<T> value("value", n.value);
  const Loaded<Real<T>> locations("locations", 2 * n.points), weights("weights", n.points);
  const Array<T> output(n.output);
  const int error = forward<T>(r.shape, r.levels, value.data, {locations.data, weights.data}, output.data, nullptr);
  output.save("output");
  return error;
}

template <typename T, typename Raw>
int run_fused(const Request& r, const Counts& n) {
  const Loaded<T> value("value", n.value);
  const Loaded<Raw> offsets("offsets", 2 * n.points), logits("logits", n.points);
  const Array<T> output(n.output);
  const RawPoints<T> points{offsets.data, logits.data, r.narrow, r.grid};
  const int error = forward_fused<T>(r.shape, r.levels, value.data, points, output.data, nullptr);
  output.save("output");
  return error;
}

template <typename T>
int run_backward(const Request& r, const Counts& n) {
  const Loaded<T> value("value", n.value), grad_output("grad_output", n.output);
  const Loaded<Real<T>> locations("locations", 2 * n.points), weights("weights", n.points);
  const Array<Real<T>> by_value(n.value), by_location(2 * n.points), by_weight(n.points);
  if (!r.deterministic) {
    std::memset(by_value.data, 0, by_value.bytes);
    emulation::reserve_for_atomics(by_value.data, by_value.bytes);
  }
  const Gradients<T> gradients{grad_output.data, by_value.data, by_location.data, by_weight.data, r.deterministic};
  const int error =
      backward<T>(r.shape, r.levels, value.data, {locations.data, weights.data}, gradients, nullptr);
  emulation::release_from_atomics();
  by_value.save("grad_value");
  by_location.save("grad_locations");
  by_weight.save("grad_weights");
  return error;
}

template <typename T>
int run(const Request& request) {
  const Counts counts(request);
  if (request.call == "forward") return run_forward<T>(request, counts);
  if (request.call == "backward") return run_backward<T>(request, counts);
  check(request.call == "fused", "no such call");
  return request.narrow ? run_fused<T, T>(request, counts) : run_fused<T, Real<T>>(request, counts);
}

}  // namespace

int main(int, char** arguments) {
  emulation::read_shared_memory(arguments[0]);
  folder = arguments[1];
  const Request request = read_request();
  const int error = run<GEOSEG_DTYPE>(request);
  if (error != cudaSuccess) std::fprintf(stderr, "%s\n", explain(error));
  return error;
}
