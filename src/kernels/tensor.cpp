#include "kernels/tensor.hpp"

#include <utility>

namespace pararnn::kernels {

Tensor::Tensor(AtenTensorHandle handle) : handle_(handle) {
  bool defined = false;
  TORCH_ERROR_CODE_CHECK(aoti_torch_is_defined(handle, &defined));
  if (!defined) return;
  int32_t dtype = 0, layout = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(handle, &dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(handle, &layout));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(handle, &known_.device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(handle, &known_.device_index));
  known_.type = torch::stable::detail::to<ScalarType>(torch::stable::detail::from(dtype));
  known_.element_size = aoti_torch_dtype_element_size(dtype);
  known_.is_dense = layout == aoti_torch_layout_strided();
  if (known_.is_dense) read_shape();
}

Tensor::Tensor(AtenTensorHandle handle, ScalarType type, const Tensor& like)
    : handle_(handle), known_(like.known_) {
  if (type != like.known_.type) {
    known_.type = type;
    known_.element_size = aoti_torch_dtype_element_size(
        torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)));
  }
  known_.is_dense = true;
  read_shape();
}

void Tensor::read_shape() {
  int64_t dim = 0, *sizes = nullptr, *strides = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(get(), &dim));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(get(), &sizes));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(get(), &strides));
  known_.sizes = {sizes, size_t(dim)};
  known_.strides = strides;
}

AtenTensorHandle Tensor::another(AtenTensorHandle handle) {
  AtenTensorHandle result = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(handle, &result));
  return result;
}

AtenTensorHandle Tensor::release() && {
  return handle_.get_deleter().owned ? handle_.release() : new_handle();
}

int64_t Tensor::numel() const {
  int64_t numbers = 1;
  for (const int64_t size : sizes()) numbers *= size;
  return numbers;
}

bool Tensor::is_contiguous() const {
  bool result = false;
  TORCH_ERROR_CODE_CHECK(aoti_torch_is_contiguous(get(), &result));
  return result;
}

void* Tensor::mutable_data_ptr() const {
  void* data = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(get(), &data));
  return data;
}

const void* Tensor::const_data_ptr() const {
  const void* data = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_get_const_data_ptr(get(), &data));
  return data;
}

void Tensor::Delete::operator()(AtenTensorHandle handle) const {
  if (owned) TORCH_ERROR_CODE_CHECK(aoti_torch_delete_tensor_object(handle));
}

}  // namespace pararnn::kernels
