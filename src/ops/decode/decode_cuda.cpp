#include "ops/decode/decode_cuda.hpp"

#include "ops/decode/decode_product.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

constexpr const char* kDecodeFile = "decode/decode_kernel.hpp";

}  // namespace

DecodeInput decode_embedding_cuda(const Tensor& tokens, const Tensor& embedding,
                                  const Tensor& norm_weight, double epsilon, const Tensor& stream) {
  const int64_t batch = stream.size(0), width = stream.size(1);
  const Tensor next = halves_like(stream, {batch, width});
  const Tensor squares = floats_like(stream, {batch, 1});
  launch_decode(kernel_source(kDecodeFile, "decode_embedding"), stream,
                dim3(static_cast<unsigned>(batch)),
                DecodeEmbedding{.width = static_cast<int>(width),
                                .tokens = reinterpret_cast<long long*>(tokens.data_ptr<int64_t>()),
                                .embedding = embedding.data_ptr(),
                                .norm_weight = norm_weight.data_ptr<float>(),
                                .stream = stream.data_ptr<float>(),
                                .next = next.data_ptr(),
                                .squares = squares.data_ptr<float>()});
  return {next, squares, epsilon};
}

std::pair<Tensor, Tensor> decode_convolution_cuda(const DecodeInput& input, const Tensor& weight,
                                                  const Tensor& taps, const Tensor& before) {
  const Product product(input, weight, 2);
  const int64_t batch = input.x.size(0), width = taps.size(1);
  const Tensor convolved = halves_like(weight, {batch, width});
  const Tensor gate = floats_like(weight, {batch, width});
  product.launch(kDecodeFile, "decode_convolution",
                 DecodeConvolution{.taps = taps_of(taps, before),
                                   .convolved = convolved.data_ptr(),
                                   .gate = gate.data_ptr<float>()});
  return {convolved, gate};
}

jit::KernelSource decode_cell_source(const CellDefinition& cell, const std::string& plan) {
  unsigned given = 0;
  for (const int input : cell.side_inputs) given |= 1u << input;
  jit::KernelSource source =
      kernel_source(kDecodeFile, fmt::format("decode_cell<{}, {}u, {}>", cell.type, given, plan));
  source.text = fmt::format("#include \"{}\"\n", kCellHeader) + source.text;
  const std::vector<jit::Header> headers = headers_of(cell);
  source.headers.insert(source.headers.end(), headers.begin(), headers.end());
  // As the engine's kernels of cells.
  source.options = {"--prec-div=false", "--prec-sqrt=false"};
  return source;
}

DecodeInput decode_cell_cuda(const Tensor& x, const Tensor& weight, const Tensor& bias,
                             const Tensor& recurrent, const Tensor& state,
                             const CellDefinition& cell, const Tensor& norm_weight, double epsilon,
                             const Tensor& gate) {
  const int64_t heads = weight.size(0), groups = weight.size(1) / weight.size(2);
  const Product product({x}, weight, groups, heads);
  const Tensor next = halves_like(weight, x.sizes()), squares = product.squares();
  product.launch(decode_cell_source(cell, product.plan.arguments()),
                 DecodeCell{.bias = bias.data_ptr<float>(),
                            .recurrent = recurrent.data_ptr<float>(),
                            .state = state.data_ptr<float>(),
                            .norm_weight = norm_weight.data_ptr<float>(),
                            .gate = gate.data_ptr<float>(),
                            .next = next.data_ptr(),
                            .squares = squares_to(squares)});
  return {next, squares, epsilon};
}

DecodeInput decode_residual_cuda(const DecodeInput& input, const Tensor& weight,
                                 const Tensor& scale, const Tensor& stream,
                                 const Tensor& norm_weight, double epsilon) {
  const Product product(input, weight, 1);
  const Tensor next = halves_like(stream, stream.sizes()), squares = product.squares();
  product.launch(kDecodeFile, "decode_residual",
                 DecodeResidual{.scale = scale.data_ptr<float>(),
                                .stream = stream.data_ptr<float>(),
                                .norm_weight = norm_weight.data_ptr<float>(),
                                .next = next.data_ptr(),
                                .squares = squares_to(squares)});
  return {next, squares, epsilon};
}

Tensor decode_swiglu_cuda(const DecodeInput& input, const Tensor& weight) {
  const Product product(input, weight, 2);
  const Tensor next = halves_like(weight, {input.x.size(0), weight.size(0) / 2});
  product.launch(kDecodeFile, "decode_swiglu", DecodeSwiglu{next.data_ptr()});
  return next;
}

void decode_logits_cuda(const DecodeInput& input, const Tensor& weight, const Tensor& logits) {
  const Product product(input, weight, 1);
  product.launch(kDecodeFile, "decode_logits", DecodeLogits{logits.data_ptr<float>()});
}

}  // namespace pararnn::ops
