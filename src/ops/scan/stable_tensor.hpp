// LibTorch's tensors in C++ and those of its stable interface, which the kernels take: two handles
// of the same thing.
#pragma once

#include <torch/csrc/inductor/aoti_torch/utils.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/types.h>

#include <optional>

#include "kernels/scan_arguments.hpp"
#include "ops/scan/scan.hpp"

namespace pararnn {

inline kernels::Tensor to_stable(const torch::Tensor& t) {
  return kernels::Tensor(torch::aot_inductor::new_tensor_handle(torch::Tensor(t)));
}

inline std::optional<kernels::Tensor> to_stable(const std::optional<torch::Tensor>& t) {
  return t ? std::make_optional(to_stable(*t)) : std::nullopt;
}

inline kernels::SequenceTensors to_stable(const ScanSequences& sequences) {
  return {to_stable(sequences.cu_seqlens), to_stable(sequences.reset)};
}

inline torch::Tensor from_stable(const kernels::Tensor& t) {
  return *torch::aot_inductor::tensor_handle_to_tensor_pointer(t.get());
}

}  // namespace pararnn
