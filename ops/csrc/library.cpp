// The operators' schemas, declared once for all devices. Loading the library registers
// them; it is no Python module, and needs no header of Python's.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(geoseg, library) {
  // spatial_shapes: height and width of each level, one after the other. Numbers, not a
  // tensor: on a GPU, reading it would wait for the device.
  library.def(
      "ms_deform_attn(Tensor value, SymInt[] spatial_shapes, Tensor sampling_locations, "
      "Tensor attention_weights) -> Tensor");
  library.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, SymInt[] spatial_shapes, "
      "Tensor sampling_locations, Tensor attention_weights, bool deterministic=False) "
      "-> (Tensor, Tensor, Tensor)");
  // query_shapes: levels whose cells, level after level, are the queries. Offsets are in
  // cells of the level sampled, from the centre of the query's cell; the softmax of the
  // logits goes over L and P jointly.
  library.def(
      "ms_deform_attn_fused(Tensor value, SymInt[] spatial_shapes, SymInt[] query_shapes, "
      "Tensor sampling_offsets, Tensor attention_logits) -> Tensor");
}
