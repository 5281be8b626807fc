// The functions of decode.hpp by the kernels of decode_kernel.hpp.
#pragma once

#include <string>

#include "jit/source.hpp"
#include "ops/decode/decode.hpp"

namespace pararnn::ops {

DecodeInput decode_embedding_cuda(const torch::Tensor& tokens, const torch::Tensor& embedding,
                                  const torch::Tensor& norm_weight, double epsilon,
                                  const torch::Tensor& stream);
std::pair<torch::Tensor, torch::Tensor> decode_convolution_cuda(const DecodeInput& input,
                                                                const torch::Tensor& weight,
                                                                const torch::Tensor& taps,
                                                                const torch::Tensor& before);
DecodeInput decode_cell_cuda(const torch::Tensor& x, const torch::Tensor& weight,
                             const torch::Tensor& bias, const torch::Tensor& recurrent,
                             const torch::Tensor& state, const CellDefinition& cell,
                             const torch::Tensor& norm_weight, double epsilon,
                             const torch::Tensor& gate);
DecodeInput decode_residual_cuda(const DecodeInput& input, const torch::Tensor& weight,
                                 const torch::Tensor& scale, const torch::Tensor& stream,
                                 const torch::Tensor& norm_weight, double epsilon);
torch::Tensor decode_swiglu_cuda(const DecodeInput& input, const torch::Tensor& weight);
void decode_logits_cuda(const DecodeInput& input, const torch::Tensor& weight,
                        const torch::Tensor& logits);

/// The program of decode_cell for a cell; `plan`: the arguments of a DecodePlan.
jit::KernelSource decode_cell_source(const CellDefinition& cell, const std::string& plan);

/// How a product is cut into blocks: kTiles, kColumns and kOwnProduct of the kernel (false: the
/// product is the library's), and its grid, along x and, times the heads, along y.
struct DecodePlan {
  int64_t tiles, columns;
  bool own_product;
  int64_t blocks, row_blocks;

  /// "1, 2, true": the template arguments.
  std::string arguments() const;
  /// Of the batch, at most.
  int64_t rows_of_block() const;
  /// Into how many parts a head's sums of squares come.
  int64_t parts_of_head() const;
};
/// For so many groups, channels a head, heads, numbers of depth and rows of the batch.
DecodePlan plan_decode(int64_t groups, int64_t channels, int64_t heads, int64_t depth,
                       int64_t batch, int64_t multiprocessors);

}  // namespace pararnn::ops
