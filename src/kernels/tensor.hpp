// Tensors of LibTorch as the kernels take them, on its stable interface. torch::stable::Tensor asks
// LibTorch for a dtype or a size each time it is wanted, through a C function, and keeps its handle
// in a std::shared_ptr: for small tensors both cost more than the arithmetic.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <memory>
#include <span>

namespace pararnn::kernels {

using torch::headeronly::ScalarType;

/// A handle of a tensor, with what does not change while a scan runs, read once. Copies are other
/// handles of the same tensor. A sparse tensor shows no sizes.
class Tensor {
 public:
  /// An undefined tensor.
  Tensor() = default;
  /// Takes the handle over.
  explicit Tensor(AtenTensorHandle handle);
  /// The same for a dense tensor of that dtype on the device of `like`.
  Tensor(AtenTensorHandle handle, ScalarType type, const Tensor& like);
  /// Another handle of the same tensor; and back.
  Tensor(const torch::stable::Tensor& t) : Tensor(another(t.get())) {}
  operator torch::stable::Tensor() const { return torch::stable::Tensor(new_handle()); }

  Tensor(const Tensor& other)
      : handle_(other.handle_ ? other.new_handle() : nullptr), known_(other.known_) {}
  Tensor(Tensor&& other) noexcept = default;
  Tensor& operator=(const Tensor& other) { return *this = Tensor(other); }
  Tensor& operator=(Tensor&& other) noexcept = default;
  ~Tensor() = default;

  /// The same tensor, without a handle of its own: for as long as this one lives.
  Tensor borrowed() const { return Tensor(handle_.get(), known_, false); }

  AtenTensorHandle get() const { return handle_.get(); }
  /// One that its new owner deletes.
  AtenTensorHandle new_handle() const { return another(get()); }
  /// The same; this tensor may be gone then.
  AtenTensorHandle release() &&;

  bool defined() const { return known_.type != ScalarType::Undefined; }
  bool is_dense() const { return known_.is_dense; }
  ScalarType scalar_type() const { return known_.type; }
  size_t element_size() const { return known_.element_size; }

  int32_t device_type() const { return known_.device_type; }  // of the stable interface
  int32_t get_device_index() const { return known_.device_index; }
  bool is_cpu() const { return known_.device_type == aoti_torch_device_type_cpu(); }
  bool is_cuda() const { return known_.device_type == aoti_torch_device_type_cuda(); }

  int64_t dim() const { return int64_t(known_.sizes.size()); }
  std::span<const int64_t> sizes() const { return known_.sizes; }
  std::span<const int64_t> strides() const { return {known_.strides, known_.sizes.size()}; }
  /// Of a dimension there is, counted from the last where `i` is negative.
  int64_t size(int64_t i) const { return known_.sizes[place(i)]; }
  int64_t stride(int64_t i) const { return known_.strides[place(i)]; }
  int64_t numel() const;
  bool is_contiguous() const;

  void* data_ptr() const { return mutable_data_ptr(); }
  void* mutable_data_ptr() const;
  const void* const_data_ptr() const;
  /// Of numbers of the tensor's dtype.
  template <class T>
  T* mutable_data_ptr() const {
    return static_cast<T*>(mutable_data_ptr());
  }
  template <class T>
  const T* const_data_ptr() const {
    return static_cast<const T*>(const_data_ptr());
  }

 private:
  struct Known {
    ScalarType type = ScalarType::Undefined;
    bool is_dense = false;
    int32_t device_type = 0, device_index = 0;
    size_t element_size = 0;
    std::span<const int64_t> sizes;  // the tensor's own
    const int64_t* strides = nullptr;
  };
  struct Delete {
    Delete() : owned(true) {}
    explicit Delete(bool is_owned) : owned(is_owned) {}
    void operator()(AtenTensorHandle handle) const;
    bool owned;
  };

  Tensor(AtenTensorHandle handle, const Known& known, bool owned)
      : handle_(handle, Delete{owned}), known_(known) {}
  static AtenTensorHandle another(AtenTensorHandle handle);
  void read_shape();
  size_t place(int64_t i) const { return size_t(i < 0 ? i + dim() : i); }

  std::unique_ptr<AtenTensorOpaque, Delete> handle_;
  Known known_;
};

}  // namespace pararnn::kernels
