// The tensors of a check, on its device, and what the scan makes of them.
#pragma once

#include "kernels/torch_stable.hpp"
#include "verdict/check_case.hpp"

namespace pararnn {

/// Shapes as in ops/scan/scan.hpp.
struct CheckProblem {
  kernels::Tensor u, w, h0, dy, dhT;
};

struct CheckResults {
  kernels::Tensor y, hT, du, dw, dh0;
  kernels::Tensor checkpoints;  // of the state, as the forward pass leaves them
  int64_t checkpoint_interval;
};

/// Standard normal inputs and gradients, weights within ±weight_scale, positive states as a
/// normaliser's. Throws Error for a dtype, cell or device that there is not.
CheckProblem random_problem(const CheckCase& check);

/// The same numbers in the arithmetic's dtype.
CheckProblem in_arithmetic_of(const CheckProblem& problem);

/// Forward and backward.
CheckResults run_problem(const CheckCase& check, const CheckProblem& problem);

/// On the host.
ProblemNumbers numbers_of(const CheckProblem& problem);
ResultNumbers numbers_of(const CheckResults& results);

}  // namespace pararnn
