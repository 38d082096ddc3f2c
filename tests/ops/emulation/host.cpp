// Makes the launch code take tensors on the CPU for tensors on the device cuda:0, and those
// on "meta" for tensors on cuda:1. Linked with -Bsymbolic, so that only the library that
// holds this is deceived, not torch.
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

namespace {

// The guard is alive, and the stream is asked for on its device.
int guards = 0;
char any_stream;

bool is_elsewhere(AtenTensorHandle tensor) {
  using Asks = AOTITorchError(AtenTensorHandle, int32_t*);
  static Asks* const ask = reinterpret_cast<Asks*>(dlsym(RTLD_NEXT, "aoti_torch_get_device_type"));
  int32_t type = 0;
  ask(tensor, &type);
  return type == aoti_torch_device_type_meta();
}

}  // namespace

extern "C" {

AOTITorchError aoti_torch_get_device_type(AtenTensorHandle, int32_t* type) {
  *type = aoti_torch_device_type_cuda();
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_get_device_index(AtenTensorHandle tensor, int32_t* index) {
  *index = is_elsewhere(tensor);
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_create_device_guard(int32_t index, DeviceGuardHandle* guard) {
  if (index != 0) return AOTI_TORCH_FAILURE;
  guards++;
  *guard = reinterpret_cast<DeviceGuardHandle>(&guards);
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) {
  guards--;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_get_current_cuda_stream(int32_t index, void** stream) {
  if (guards != 1 || index != 0) return AOTI_TORCH_FAILURE;
  *stream = &any_stream;
  emulation::stream = static_cast<cudaStream_t>(*stream);
  return AOTI_TORCH_SUCCESS;
}

// Whether atomics may be used; anywhere, as it is not known where they belong.
void allow_atomics(bool allowed) {
  emulation::atomics_begin = nullptr;
  emulation::atomics_end = allowed ? reinterpret_cast<char*>(UINTPTR_MAX) : nullptr;
}

// What starting a kernel gives from now on.
void let_launches_give(int error) { emulation::launch_error = static_cast<cudaError_t>(error); }

}  // extern "C"
