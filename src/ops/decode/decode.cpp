#include "ops/decode/decode.hpp"

#include <vector>

#include "ops/decode/decode_cuda.hpp"
#include "ops/scan/scan.hpp"

namespace pararnn::ops {
using torch::Tensor;

Tensor product_of(const DecodeInput& input, const Tensor& weight) {
  Tensor y = torch::matmul(input.x.to(torch::kFloat), weight.to(torch::kFloat).t());
  if (input.squares.defined()) {
    const double width = static_cast<double>(input.x.size(1));
    y = y * torch::rsqrt(input.squares.sum(1, /*keepdim=*/true) / width + input.epsilon);
  }
  return y;
}

DecodeInput input_of_norm(const Tensor& v, const Tensor& weight, double epsilon) {
  return {(v * weight).to(torch::kBFloat16), v.square().sum(1, /*keepdim=*/true), epsilon};
}

DecodeInput decode_embedding(const Tensor& tokens, const Tensor& embedding,
                             const Tensor& norm_weight, double epsilon, const Tensor& stream) {
  if (tokens.is_cuda()) {
    return decode_embedding_cuda(tokens, embedding, norm_weight, epsilon, stream);
  }
  Tensor(stream).copy_(torch::embedding(embedding, tokens));
  return input_of_norm(stream, norm_weight, epsilon);
}

std::pair<Tensor, Tensor> decode_convolution(const DecodeInput& input, const Tensor& weight,
                                             const Tensor& taps, const Tensor& before) {
  if (weight.is_cuda()) return decode_convolution_cuda(input, weight, taps, before);
  const auto halves = product_of(input, weight).chunk(2, 1);
  const Tensor seen = torch::cat({before, halves[0].to(torch::kBFloat16).unsqueeze(1)}, 1);
  Tensor(before).copy_(seen.slice(1, 1));
  return {(seen.to(torch::kFloat) * taps).sum(1).to(torch::kBFloat16), torch::silu(halves[1])};
}

DecodeInput decode_cell(const Tensor& x, const Tensor& weight, const Tensor& bias,
                        const Tensor& recurrent, const Tensor& state, const CellDefinition& cell,
                        const Tensor& norm_weight, double epsilon, const Tensor& gate) {
  if (weight.is_cuda()) {
    return decode_cell_cuda(x, weight, bias, recurrent, state, cell, norm_weight, epsilon, gate);
  }
  const int64_t heads = weight.size(0), channels = weight.size(2);
  std::vector<Tensor> inputs;  // (B,H,1,d/H) each
  const Tensor product =
      torch::einsum("bhk,hnk->bhn",
                    {x.to(torch::kFloat).view({-1, heads, channels}), weight.to(torch::kFloat)}) +
      bias;
  const Tensor projected = product.view({x.size(0), heads, -1, channels});
  int64_t next = 0;
  for (int n = 0; n < cell.inputs; ++n) {
    const bool given = std::ranges::find(cell.side_inputs, n) != cell.side_inputs.end();
    inputs.push_back(given ? torch::ones_like(projected.narrow(2, 0, 1))
                           : projected.narrow(2, next++, 1));
  }
  const auto [y, h] = step(torch::cat(inputs, 2), recurrent, state, cell.key());
  Tensor(state).copy_(h);
  return input_of_norm(y, norm_weight * gate, epsilon);
}

DecodeInput decode_residual(const DecodeInput& input, const Tensor& weight, const Tensor& scale,
                            const Tensor& stream, const Tensor& norm_weight, double epsilon) {
  if (weight.is_cuda()) {
    return decode_residual_cuda(input, weight, scale, stream, norm_weight, epsilon);
  }
  Tensor(stream).add_(scale * product_of(input, weight));
  return input_of_norm(stream, norm_weight, epsilon);
}

Tensor decode_swiglu(const DecodeInput& input, const Tensor& weight) {
  if (weight.is_cuda()) return decode_swiglu_cuda(input, weight);
  const auto halves = product_of(input, weight).chunk(2, 1);
  return (torch::silu(halves[0]) * halves[1]).to(torch::kBFloat16);
}

void decode_logits(const DecodeInput& input, const Tensor& weight, const Tensor& logits) {
  if (weight.is_cuda()) return decode_logits_cuda(input, weight, logits);
  Tensor(logits).copy_(product_of(input, weight));
}

}  // namespace pararnn::ops
