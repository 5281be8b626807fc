#include "ops/cross_entropy/cross_entropy.hpp"

#include <torch/autograd.h>

#include <algorithm>
#include <limits>

#include "ops/cross_entropy/cross_entropy_cuda.hpp"
#include "ops/cuda_kernels.hpp"
#include "ops/rows.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;

/// Bytes of the logits that are held at once. For each chunk the gradient of the weight, in fp32,
/// is read and written once more: 8 V d bytes, which 6 V d operations a token must hide. On a GPU
/// those of some thousand tokens do. On a CPU some hundred do, and what is held should stay in the
/// caches (measured: 32 MiB is as fast as any at 4096 to 32000 words).
constexpr int64_t kLogitsBytesOnCuda = int64_t{1} << 30, kLogitsBytesOnCpu = int64_t{1} << 25;

/// The largest number of a row; NaN if one is NaN, or +∞.
template <class T>
[[gnu::always_inline]] inline Arithmetic<T> largest_of(const T* x, int64_t width) {
  using A = Arithmetic<T>;
  constexpr A kInfinity = std::numeric_limits<A>::infinity();
  A largest = -kInfinity;
  int unbounded = 0;  // of && and bool the compiler makes a plain loop
#pragma omp simd reduction(max : largest) reduction(| : unbounded)
  for (int64_t i = 0; i < width; ++i) {
    const A value = widen(x[i]);
    largest = value > largest ? value : largest;
    unbounded |= value < kInfinity ? 0 : 1;
  }
  return unbounded ? std::numeric_limits<A>::quiet_NaN() : largest;
}

/// With Z = log Σ exp(x), d(Z - x[target] + z_loss Z²)/dx = softmax(x) (1 + 2 z_loss Z) -
/// 1[target], by which the logits x are overwritten where a gradient is wanted.
template <class T>
PARARNN_VECTORISED void cross_entropy_rows(Rows<T> logits, const int64_t* targets,
                                           Arithmetic<T> z_loss, bool gradient,
                                           Arithmetic<T>* cross_entropies,
                                           Arithmetic<T>* squared_log_partitions, int64_t begin,
                                           int64_t end) {
  using A = Arithmetic<T>;
  for (int64_t row = begin; row < end; ++row) {
    T* x = logits[row];
    const A target_logit = widen(x[targets[row]]);
    const A largest = largest_of(x, logits.width);
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < logits.width; ++i) sum += exponential(widen(x[i]) - largest);
    const A log_partition = largest + std::log(sum);
    cross_entropies[row] = log_partition - target_logit;
    squared_log_partitions[row] = log_partition * log_partition;
    if (!gradient) continue;
    const A factor = (1 + 2 * z_loss * log_partition) / sum;
    const A of_target = exponential(target_logit - largest) * factor - 1;
#pragma omp simd
    for (int64_t i = 0; i < logits.width; ++i) {
      x[i] = narrow<T>(exponential(widen(x[i]) - largest) * factor);
    }
    x[targets[row]] = narrow<T>(of_target);
  }
}

/// cross_entropy_rows_cuda() on any device.
void cross_entropy_rows(const Tensor& logits, const Tensor& targets, double z_loss, bool gradient,
                        const Tensor& cross_entropies, const Tensor& squared_log_partitions) {
  if (logits.is_cuda()) {
    cross_entropy_rows_cuda(logits, targets, z_loss, gradient, cross_entropies,
                            squared_log_partitions);
    return;
  }
  with_type(logits.scalar_type(), [&]<class T>(T) {
    using A = Arithmetic<T>;
    const int64_t* of_rows = targets.data_ptr<int64_t>();
    A *losses = cross_entropies.data_ptr<A>(), *squares = squared_log_partitions.data_ptr<A>();
    constexpr int64_t kRowsOfThread = 8;  // at least
    at::parallel_for(0, logits.size(0), kRowsOfThread, [&](int64_t begin, int64_t end) {
      cross_entropy_rows<T>(rows<T>(logits), of_rows, A(z_loss), gradient, losses, squares, begin,
                            end);
    });
  });
}

/// sum ← sum + factor · a b, or factor · a b where it is the first. A sum may be in float where a
/// and b are narrower.
void add_product(Tensor sum, const Tensor& a, const Tensor& b, double factor, bool first) {
  const int keep = first ? 0 : 1;  // what is not kept is not read
  if (sum.scalar_type() == a.scalar_type()) {
    torch::addmm_out(sum, sum, a, b, keep, factor);
  } else if (sum.is_cuda()) {
    torch::addmm_out(sum, sum, a, b, sum.scalar_type(), keep, factor);
  } else {  // on a CPU the product of a chunk is in the dtype of a and b
    if (first) sum.zero_();
    sum.add_(torch::mm(a, b), factor);
  }
}

struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const Tensor& hidden, const Tensor& weight,
                                                const Tensor& targets, double z_loss, double scale,
                                                bool of_hidden, bool of_weight) {
    const int64_t tokens = hidden.size(0), vocabulary = weight.size(0);
    const torch::ScalarType dtype = hidden.scalar_type(), arithmetic = arithmetic_dtype(dtype);
    const Tensor multiplied = weight.to(dtype);
    const int64_t at_once = tokens_at_once(tokens, vocabulary, dtype, hidden.device().type());
    const int64_t stride = hidden.is_cuda() ? logits_stride(vocabulary) : vocabulary;
    const Tensor space = torch::empty({at_once, stride}, hidden.options()).narrow(1, 0, vocabulary);
    const Tensor losses = torch::empty({2, tokens}, hidden.options().dtype(arithmetic));
    const Tensor dhidden = of_hidden ? torch::empty(hidden.sizes(), hidden.options()) : Tensor();
    // In the arithmetic's dtype where there are several chunks to add up.
    const Tensor dweight =
        of_weight ? torch::empty(weight.sizes(),
                                 weight.options().dtype(at_once < tokens ? arithmetic
                                                                         : weight.scalar_type()))
                  : Tensor();
    const double share = scale / static_cast<double>(tokens);
    for (int64_t begin = 0; begin == 0 || begin < tokens; begin += at_once) {
      const int64_t count = std::min(at_once, tokens - begin);
      const auto part = [&](const Tensor& t) { return t.narrow(-1, begin, count); };
      const Tensor x = hidden.narrow(0, begin, count);
      Tensor logits = space.narrow(0, 0, count);
      torch::mm_out(logits, x, multiplied.t());
      cross_entropy_rows(logits, part(targets), z_loss, of_hidden || of_weight, part(losses[0]),
                         part(losses[1]));
      if (of_hidden) add_product(dhidden.narrow(0, begin, count), logits, multiplied, share, true);
      if (of_weight) add_product(dweight, logits.t(), x, share, begin == 0);
    }
    context->set_materialize_grads(false);
    if (of_hidden) context->saved_data["dhidden"] = dhidden;
    if (of_weight) context->saved_data["dweight"] = dweight.to(weight.scalar_type());
    const Tensor means = losses.mean(1);
    const Tensor total = z_loss > 0 ? means[0] + z_loss * means[1] : means[0];
    const Tensor cross_entropy = means[0].clone();
    context->mark_non_differentiable({cross_entropy});
    return {cross_entropy, total * scale};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    require(!context->saved_data.empty(),
            "the gradients of linear_cross_entropy were given away by the first backward: compute "
            "the loss again");
    const Tensor factor = gradients[1];
    // What is given away is not held here, so that it becomes a parameter's gradient without a
    // copy.
    const auto scaled = [&](const char* name) {
      const auto found = context->saved_data.find(name);
      if (found == context->saved_data.end()) return Tensor();
      Tensor gradient = std::move(found->second).toTensor();
      if (gradient.is_cuda()) {
        scale_gradient_cuda(gradient, factor);
      } else if (factor.item<double>() != 1) {
        gradient.mul_(factor);
      }
      return gradient;
    };
    const Tensor dhidden = scaled("dhidden"), dweight = scaled("dweight");
    context->saved_data.clear();
    return {dhidden, dweight, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

void require_matching(const Tensor& hidden, const Tensor& weight, const Tensor& targets) {
  require(hidden.dim() >= 2 && weight.dim() == 2 && hidden.size(-1) == weight.size(1),
          "hidden must be (...,d) and weight (V,d), not {} and {}", c10::str(hidden.sizes()),
          c10::str(weight.sizes()));
  const torch::IntArrayRef tokens = hidden.sizes().slice(0, hidden.dim() - 1);
  require(targets.sizes() == tokens && targets.scalar_type() == torch::kLong,
          "targets must be {} and int64, one for each token, not {} and {}", c10::str(tokens),
          c10::str(targets.sizes()), torch::toString(targets.scalar_type()));
  if (!targets.is_cpu() || targets.numel() == 0) return;
  const auto [least, largest] = targets.aminmax();
  require(least.item<int64_t>() >= 0 && largest.item<int64_t>() < weight.size(0),
          "targets must be from 0 to {}, the vocabulary less one, but range from {} to {}",
          weight.size(0) - 1, least.item<int64_t>(), largest.item<int64_t>());
}

}  // namespace

CrossEntropy linear_cross_entropy(const Tensor& hidden, const Tensor& weight, const Tensor& targets,
                                  const CrossEntropyOptions& options) {
  require_matching(hidden, weight, targets);
  const torch::ScalarType dtype = hidden.scalar_type();
  if (!has_loops(hidden, dtype) && !has_kernels(hidden, dtype)) {
    return linear_cross_entropy_definition(hidden, weight, targets, options);
  }
  const bool recorded = torch::GradMode::is_enabled();
  const auto losses = LinearCrossEntropy::apply(
      foldable(hidden), weight, targets.contiguous().flatten(), options.z_loss, options.scale,
      recorded && hidden.requires_grad(), recorded && weight.requires_grad());
  return {losses[0], losses[1]};
}

CrossEntropy linear_cross_entropy_definition(const Tensor& hidden, const Tensor& weight,
                                             const Tensor& targets,
                                             const CrossEntropyOptions& options) {
  const Tensor logits = torch::linear(hidden, weight.to(hidden.scalar_type()))
                            .to(arithmetic_dtype(hidden.scalar_type()));
  const Tensor log_partitions = logits.logsumexp(-1);
  const Tensor target_logits = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1);
  const Tensor cross_entropy = (log_partitions - target_logits).mean();
  Tensor total = cross_entropy;
  if (options.z_loss > 0) total = total + options.z_loss * log_partitions.square().mean();
  return {cross_entropy.detach(), total * options.scale};
}

int64_t tokens_at_once(int64_t tokens, int64_t vocabulary, torch::ScalarType dtype,
                       torch::DeviceType device) {
  const int64_t bytes = device == torch::kCUDA ? kLogitsBytesOnCuda : kLogitsBytesOnCpu;
  const int64_t of_token = vocabulary * static_cast<int64_t>(c10::elementSize(dtype));
  const int64_t most = std::max<int64_t>(1, bytes / std::max<int64_t>(1, of_token));
  const int64_t chunks = std::max<int64_t>(1, (tokens + most - 1) / most);
  return std::max<int64_t>(1, (tokens + chunks - 1) / chunks);
}

}  // namespace pararnn::ops
