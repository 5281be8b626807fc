#include "ops/rms_norm/rms_norm_cuda.hpp"

#include <torch/autograd.h>

#include <algorithm>

#include "ops/cuda_kernels.hpp"
#include "ops/halves/halves.hpp"
#include "ops/rms_norm/rms_norm_problem.hpp"
#include "ops/row_sum/row_sum.hpp"
#include "ops/rows.hpp"

namespace pararnn::ops {
namespace {

using torch::Tensor;
using Optional = std::optional<Tensor>;

constexpr const char* kFile = "rms_norm/rms_norm_kernel.hpp";
/// As many blocks as have room at once, each of which has its share of the rows: what it reads of
/// the weights is little, and so is what it adds up.
int64_t blocks_for(int64_t rows, const RowPlan& plan, const std::string& kernel, const Tensor& on) {
  return std::min((rows + plan.rows_of_block() - 1) / plan.rows_of_block(),
                  resident_blocks(kFile, kernel, on, plan.block_threads()));
}

int64_t stride_of(const Tensor& rows) { return rows.defined() ? rows.stride(0) : 0; }
void* data_of(const Tensor& t) { return t.defined() ? t.data_ptr() : nullptr; }
Tensor rows_of(const Optional& t) { return t && t->defined() ? foldable(*t) : Tensor(); }

const char* name_of(NormGate gate) {
  switch (gate) {
    case NormGate::kAfter:
      return "pararnn::ops::NormGate::kAfter";
    case NormGate::kBefore:
      return "pararnn::ops::NormGate::kBefore";
    default:
      return "pararnn::ops::NormGate::kNone";
  }
}

std::string instance(const char* name, const Tensor& x, torch::ScalarType dtype,
                     const Tensor& weight, const RowPlan& plan, bool residual, NormGate gate) {
  return fmt::format("{}<{}, {}, {}, {}, {}, {}>", name, storage_name(x.scalar_type()),
                     storage_name(dtype), storage_name(weight.scalar_type()), plan.arguments(),
                     residual, name_of(gate));
}

struct NormOnCuda : torch::autograd::Function<NormOnCuda> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const Tensor& input, const Optional& scale,
                                                const Optional& input_branch, const Tensor& weight,
                                                double epsilon, torch::ScalarType dtype,
                                                const Optional& input_gate, NormGate place) {
    const Tensor x = foldable(input), branch = rows_of(input_branch), gate = rows_of(input_gate);
    const bool residual = branch.defined();
    const Tensor y = torch::empty(input.sizes(), input.options().dtype(dtype));
    const Tensor sum = residual ? torch::empty(input.sizes(), input.options()) : Tensor();
    const Tensor weights = weight.contiguous();
    const Tensor scales = residual ? scale->to(weights.scalar_type()).contiguous() : Tensor();
    const int64_t width = input.size(-1), rows = width ? input.numel() / width : 0;
    const RowPlan plan = plan_rows(width, access_width({x, branch, gate, scales, weights, y, sum}));
    const std::string kernel =
        instance("rms_norm_forward", x, dtype, weights, plan, residual, place);
    launch_kernel(kFile, kernel, input, blocks_for(rows, plan, kernel, input), plan.block_threads(),
                  RmsNormForward{.rows = rows,
                                 .width = static_cast<int>(width),
                                 .epsilon = static_cast<float>(epsilon),
                                 .x_stride = stride_of(x),
                                 .branch_stride = stride_of(branch),
                                 .gate_stride = stride_of(gate),
                                 .x = data_of(x),
                                 .scale = data_of(scales),
                                 .branch = data_of(branch),
                                 .weight = data_of(weights),
                                 .gate = data_of(gate),
                                 .sum = data_of(sum),
                                 .y = data_of(y)});
    context->save_for_backward({residual ? sum : input, scales, input_branch.value_or(Tensor()),
                                weights, input_gate.value_or(Tensor())});
    context->saved_data["epsilon"] = epsilon;
    context->saved_data["gate"] = static_cast<int64_t>(place);
    if (gate.defined()) context->saved_data["place"] = place_of_gradient(*input_gate);
    context->set_materialize_grads(false);
    if (!residual) return {y};
    return {sum, y};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    refuse_second_derivative();
    const auto saved = context->get_saved_variables();
    const Tensor &scale = saved[1], &weight = saved[3];
    const Tensor x = foldable(saved[0]), branch = rows_of(saved[2]), gate = rows_of(saved[4]);
    const bool residual = branch.defined();
    const torch::autograd::Variable& given = gradients.back();
    const torch::ScalarType dtype = given.defined()    ? given.scalar_type()
                                    : branch.defined() ? branch.scalar_type()
                                                       : x.scalar_type();
    const Tensor dy =
        given.defined() ? foldable(given) : torch::zeros_like(x, x.options().dtype(dtype));
    const Tensor dsum = residual && gradients[0].defined() ? foldable(gradients[0]) : Tensor();
    const auto like = [](const Tensor& rows, const Tensor& shaped) {
      return rows.defined() ? torch::empty(shaped.sizes(), rows.options()) : Tensor();
    };
    const Tensor dx = like(x, saved[0]), dbranch = like(branch, saved[2]);
    const Tensor dgate =
        gate.defined() ? empty_gradient(saved[4], context->saved_data["place"]) : Tensor();
    const int64_t width = saved[0].size(-1), rows = width ? saved[0].numel() / width : 0;
    // Few channels a thread, which holds their weights and the gradients of these.
    const RowPlan plan = plan_rows(
        width, access_width({x, branch, gate, dy, dsum, scale, weight, dx, dbranch, dgate}), 8);
    const std::string kernel = instance("rms_norm_backward", x, dtype, weight, plan, residual,
                                        static_cast<NormGate>(context->saved_data["gate"].toInt()));
    const int64_t blocks = blocks_for(rows, plan, kernel, x);
    const Tensor sums =
        torch::empty({blocks, residual ? 2 : 1, width}, x.options().dtype(torch::kFloat));
    launch_kernel(
        kFile, kernel, x, blocks, plan.block_threads(),
        RmsNormBackward{.rows = rows,
                        .width = static_cast<int>(width),
                        .epsilon = static_cast<float>(context->saved_data["epsilon"].toDouble()),
                        .x_stride = stride_of(x),
                        .branch_stride = stride_of(branch),
                        .gate_stride = stride_of(gate),
                        .dy_stride = stride_of(dy),
                        .dsum_stride = stride_of(dsum),
                        .dgate_stride = stride_of(rows_of(dgate)),
                        .x = data_of(x),
                        .scale = data_of(scale),
                        .branch = data_of(branch),
                        .weight = data_of(weight),
                        .gate = data_of(gate),
                        .dy = data_of(dy),
                        .dsum = data_of(dsum),
                        .dx = data_of(dx),
                        .dbranch = data_of(dbranch),
                        .dgate = data_of(dgate),
                        .sums = sums.data_ptr<float>()});
    const Tensor added = sum_of_rows(sums, weight.scalar_type());
    return {dx,      residual ? added[1] : Tensor(), dbranch, added[0], Tensor(), Tensor(), dgate,
            Tensor()};
  }
};

}  // namespace

bool has_norm_kernels(const Tensor& x, torch::ScalarType dtype) {
  return has_kernels(x, x.scalar_type()) && has_kernels(x, dtype) && x.size(-1) <= kLongestRow;
}

std::pair<Tensor, Tensor> norm_on_cuda(const Tensor& x, const Optional& scale,
                                       const Optional& branch, const Tensor& weight, double epsilon,
                                       torch::ScalarType dtype, const Optional& gate,
                                       NormGate place) {
  const auto results = NormOnCuda::apply(x, scale, branch, weight, epsilon, dtype, gate, place);
  return results.size() == 1 ? std::make_pair(Tensor(), results[0])
                             : std::make_pair(results[0], results[1]);
}

}  // namespace pararnn::ops
