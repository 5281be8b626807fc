#include "kernels/torch_stable.hpp"

#include <dlfcn.h>

namespace pararnn::kernels {

std::string text_of(std::span<const int64_t> shape) {
  std::string text = "(";
  for (const int64_t size : shape) text += fmt::format("{}{}", text.size() > 1 ? "," : "", size);
  return text + ")";
}

std::string shape_of(const Tensor& t) { return text_of(t.sizes()); }

const char* type_of(const Tensor& t) { return torch::headeronly::toString(t.scalar_type()); }

std::string device_of(const Tensor& t) {
  if (t.is_cpu()) return "cpu";
  if (is_meta(t)) return "meta";
  return fmt::format("{}:{}", t.is_cuda() ? "cuda" : "another device", t.get_device_index());
}

bool is_meta(const Tensor& t) { return t.device_type() == aoti_torch_device_type_meta(); }

bool on_same_device(const Tensor& a, const Tensor& b) {
  return a.device_type() == b.device_type() && a.get_device_index() == b.get_device_index();
}

Tensor make_tensor(const char* name, std::span<const int64_t> shape, ScalarType type,
                   const Tensor& like) {
  constexpr size_t kMostDimensions = 8;  // of anything here
  std::array<int64_t, kMostDimensions> strides{};
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= std::max<int64_t>(shape[i], 1);
  }
  const auto dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle handle = nullptr;
  // The C functions tell that they failed, and not why: what is asked for here fails for want of
  // memory alone.
  if (aoti_torch_empty_strided(int64_t(shape.size()), shape.data(), strides.data(), dtype,
                               like.device_type(), like.get_device_index(),
                               &handle) != TORCH_SUCCESS) {
    throw Error(fmt::format("scan: out of memory for {} of shape {}: {} bytes on {}", name,
                            text_of(shape), stride * int64_t(aoti_torch_dtype_element_size(dtype)),
                            device_of(like)));
  }
  return Tensor(handle, type, like);
}

Tensor contiguous(const char* name, const Tensor& t, ScalarType type) {
  if (t.scalar_type() == type && t.is_contiguous()) return t.borrowed();
  const std::string name_of_copy = fmt::format("a copy of {}", name);
  Tensor result = make_tensor(name_of_copy.c_str(), t.sizes(), type, t);
  copy(t, result);
  return result;
}

void copy(const Tensor& from, const Tensor& to) {
  torch::stable::Tensor written = to;
  torch::stable::copy_(written, from);
}

void fill_with_zeros(const Tensor& t) {
  torch::stable::Tensor written = t;
  torch::stable::zero_(written);
}

Text::operator std::string_view() const {
  const char* data = nullptr;
  size_t length = 0;
  TORCH_ERROR_CODE_CHECK(torch_string_c_str(handle_, &data));
  TORCH_ERROR_CODE_CHECK(torch_string_length(handle_, &length));
  return {data, length};
}

std::string& last_sentence() {
  thread_local std::string sentence;
  return sentence;
}

bool has_tangent(const Tensor& t) {
  // (primal, tangent): the tangent is undefined where there is none.
  return call<2>("aten::_unpack_dual", t, int64_t{0})[1].defined();
}

bool wants_gradient(const Tensor& t) {
  if (!aoti_torch_grad_mode_is_enabled()) return false;
  // No function tells whether a tensor requires a gradient; but a view of one that does is no leaf.
  std::array<StableIValue, 1> stack{box(std::move(call<1>("aten::alias", t)[0]))};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::is_leaf", "", stack.data(), TORCH_ABI_VERSION));
  return !torch::stable::detail::to<bool>(stack[0]);
}

void* current_cuda_stream(int device) {
  using Function = AOTITorchError (*)(int32_t, void**);
  static const auto function = [] {
    void* const library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return library ? Function(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  void* stream = nullptr;
  require(function && function(device, &stream) == TORCH_SUCCESS,
          "scan: cannot tell the current CUDA stream of device {}", device);
  return stream;
}

}  // namespace pararnn::kernels
