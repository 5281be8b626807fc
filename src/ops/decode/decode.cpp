#include "ops/decode/decode.hpp"

#include <algorithm>

#include "ops/decode/decode_cuda.hpp"
#include "ops/scan/scan.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// What a product takes: the norm's weight ⊙ v in bfloat16, as the kernel has it, and 1 / rms of v,
/// which follows the product; or one without a norm.
struct DecodeInput {
  Tensor x, inverse_rms;
};

DecodeInput normed(const Tensor& v, const Tensor& weight, double epsilon) {
  return {(v * weight).to(torch::kBFloat16),
          torch::rsqrt(v.square().mean(1, /*keepdim=*/true) + epsilon)};
}

Tensor product_of(const DecodeInput& input, const Tensor& weight) {
  const Tensor y = torch::matmul(input.x.to(torch::kFloat), weight.to(torch::kFloat).t());
  return input.inverse_rms.defined() ? y * input.inverse_rms : y;
}

/// The branch after the convolution, bfloat16, and silu(gate).
std::pair<Tensor, Tensor> convolve(const DecodeInput& input, const DecodedLayer& layer) {
  const auto halves = product_of(input, layer.input).chunk(2, 1);
  const Tensor seen = torch::cat({layer.before, halves[0].to(torch::kBFloat16).unsqueeze(1)}, 1);
  Tensor(layer.before).copy_(seen.slice(1, 1));
  return {(seen.to(torch::kFloat) * layer.taps).sum(1).to(torch::kBFloat16),
          torch::silu(halves[1])};
}

/// A step of the cell: its output (B,d).
Tensor advance(const Tensor& x, const DecodedLayer& layer, const CellDefinition& cell) {
  const int64_t heads = layer.projection.size(0), channels = layer.projection.size(2);
  const Tensor product =
      torch::einsum("bhk,hnk->bhn", {x.to(torch::kFloat).view({-1, heads, channels}),
                                     layer.projection.to(torch::kFloat)}) +
      layer.bias;
  const Tensor projected = product.view({x.size(0), heads, -1, channels});
  std::vector<Tensor> inputs;  // (B,H,1,d/H) each
  int64_t next = 0;
  for (int n = 0; n < cell.inputs; ++n) {
    const bool given = std::ranges::find(cell.side_inputs, n) != cell.side_inputs.end();
    inputs.push_back(given ? torch::ones_like(projected.narrow(2, 0, 1))
                           : projected.narrow(2, next++, 1));
  }
  const auto [y, h] = step(torch::cat(inputs, 2), layer.recurrent, layer.state, cell.key());
  Tensor(layer.state).copy_(h);
  return y;
}

}  // namespace

DecodeStep make_decode_step(const DecodedModel& model, int64_t batch) {
  if (model.embedding.is_cuda()) return make_decode_step_cuda(model, batch);
  return [model](const Tensor& tokens, const Tensor& logits) {
    decode_step_definition(model, tokens, logits);
  };
}

void decode_step_definition(const DecodedModel& model, const Tensor& tokens, const Tensor& logits) {
  Tensor stream = torch::embedding(model.embedding, tokens).to(torch::kFloat);
  for (const DecodedLayer& layer : model.layers) {
    const auto [convolved, gate] = convolve(normed(stream, layer.norm, model.epsilon), layer);
    const Tensor y = advance(convolved, layer, *model.cell);
    DecodeInput gated = normed(y, layer.cell_norm * gate, model.epsilon);
    stream = stream + layer.scale * product_of(gated, layer.output);
    const auto halves =
        product_of(normed(stream, layer.mlp_norm, model.epsilon), layer.mlp_input).chunk(2, 1);
    const Tensor activated = (torch::silu(halves[0]) * halves[1]).to(torch::kBFloat16);
    stream = stream + layer.mlp_scale * product_of({activated, {}}, layer.mlp_output);
  }
  Tensor(logits).copy_(product_of(normed(stream, model.norm, model.epsilon), model.output));
}

}  // namespace pararnn::ops
