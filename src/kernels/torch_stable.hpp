// LibTorch's stable interface, which is the same in every version since 2.11, and what the kernels
// need beyond it: tensors that are allocated or refused in one sentence, functions of operators
// that take text without a copy, calls through the dispatcher that keep the sentence of an error,
// the current CUDA stream, and what automatic differentiation would do with a tensor.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "base/error.hpp"
#include "kernels/tensor.hpp"

namespace pararnn::kernels {

using Shape = std::initializer_list<int64_t>;

/// "(2,5,3)".
std::string text_of(std::span<const int64_t> shape);
std::string shape_of(const Tensor& t);
/// "Float", "BFloat16".
const char* type_of(const Tensor& t);
/// "cpu", "cuda:1".
std::string device_of(const Tensor& t);

bool is_meta(const Tensor& t);
bool on_same_device(const Tensor& a, const Tensor& b);

/// An uninitialised contiguous tensor on the device of `like`. Throws Error, which names it, if
/// there is not enough memory.
Tensor make_tensor(const char* name, std::span<const int64_t> shape, ScalarType type,
                   const Tensor& like);
inline Tensor make_tensor(const char* name, Shape shape, ScalarType type, const Tensor& like) {
  return make_tensor(name, std::span(shape.begin(), shape.size()), type, like);
}

/// The tensor itself, borrowed, if it is contiguous and of that dtype, or a copy that is. Throws as
/// make_tensor.
Tensor contiguous(const char* name, const Tensor& t, ScalarType type);

void copy(const Tensor& from, const Tensor& to);
void fill_with_zeros(const Tensor& t);

/// An operator's argument of type str, owned and not copied. (A std::string of LibTorch 2.11's
/// conversion is never freed.)
class Text {
 public:
  explicit Text(StringHandle handle) : handle_(handle) {}
  ~Text() { torch_delete_string(handle_); }
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;

  operator std::string_view() const;

 private:
  StringHandle handle_;
};

/// What was last thrown in this thread by an operator of this library: an error loses its sentence
/// on its way through LibTorch's C functions.
std::string& last_sentence();

/// An argument of an operator, which is taken over.
template <class T>
T unbox(StableIValue value) {
  using torch::stable::detail::to;
  if constexpr (std::is_same_v<T, Tensor>) {
    return Tensor(to<AtenTensorHandle>(value));
  } else if constexpr (std::is_same_v<T, std::optional<Tensor>>) {
    const auto handle = to<std::optional<AtenTensorHandle>>(value);
    return handle ? std::make_optional<Tensor>(*handle) : std::nullopt;
  } else {
    return to<T>(value);
  }
}

/// A result of an operator, or an argument of one that is called, given away.
template <class T>
StableIValue box(T value) {
  namespace stable = torch::stable::detail;
  if constexpr (std::is_same_v<T, Tensor>) {
    return stable::from<AtenTensorHandle>(std::move(value).release());
  } else if constexpr (std::is_same_v<T, std::optional<Tensor>>) {
    std::optional<AtenTensorHandle> handle;
    if (value) handle = std::move(*value).release();
    return stable::from<std::optional<AtenTensorHandle>>(handle);
  } else {
    return stable::from<T>(value);
  }
}

template <auto function>
struct Boxed;

template <class Result, class... Parameters, Result (*function)(Parameters...)>
struct Boxed<function> {
  static void call(StableIValue* stack) {
    [&]<size_t... I>(std::index_sequence<I...>) {
      // In braces the first argument is taken first.
      std::tuple<std::remove_cvref_t<Parameters>...> arguments{
          unbox<std::remove_cvref_t<Parameters>>(stack[I])...};
      store(stack, std::apply(function, arguments));
    }
    (std::index_sequence_for<Parameters...>());
  }

 private:
  template <class... Results>
  static void store(StableIValue* stack, std::tuple<Results...> results) {
    std::apply([&](Results&... each) { ((*stack++ = box(std::move(each))), ...); }, results);
  }
  template <class One>
  static void store(StableIValue* stack, One result) {
    *stack = box(std::move(result));
  }
};

/// A function as LibTorch calls it. Its parameters are those of the schema: const Tensor&,
/// std::optional<Tensor>, int64_t, double, bool, and StringHandle for str.
template <auto function>
void boxed(StableIValue* stack, uint64_t, uint64_t) {
  try {
    Boxed<function>::call(stack);
  } catch (const std::exception& error) {
    last_sentence() = error.what();
    throw;
  }
}

/// Calls an operator through the dispatcher. Its results are all tensors: results of different
/// types would come in reverse order. Throws Error with the sentence of the operator's own.
template <size_t Results, class... Arguments>
std::array<Tensor, Results> call(const char* op, const Arguments&... arguments) {
  std::array<StableIValue, std::max(Results, sizeof...(Arguments))> stack{
      box<Arguments>(arguments)...};
  last_sentence().clear();
  if (torch_call_dispatcher(op, "", stack.data(), TORCH_ABI_VERSION) != TORCH_SUCCESS) {
    throw Error(last_sentence().empty() ? fmt::format("{} failed", op) : last_sentence());
  }
  return [&]<size_t... I>(std::index_sequence<I...>) {
    return std::array<Tensor, Results>{unbox<Tensor>(stack[I])...};
  }
  (std::make_index_sequence<Results>());
}

/// Whether autograd would record an operation on `t` now.
bool wants_gradient(const Tensor& t);
/// Whether `t` carries a tangent of forward-mode differentiation.
bool has_tangent(const Tensor& t);

/// The stream that LibTorch uses on a GPU now, a cudaStream_t. Throws Error for a LibTorch without
/// CUDA, which has no such function.
void* current_cuda_stream(int device);

}  // namespace pararnn::kernels
