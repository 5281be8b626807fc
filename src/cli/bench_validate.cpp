#include "cli/bench_validate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <future>
#include <utility>

namespace pararnn::cli {
namespace {

using torch::Tensor;

/// Some channels of all tensors.
std::pair<CheckProblem, CheckResults> narrow(const CheckProblem& p, const CheckResults& r,
                                             int64_t first, int64_t count) {
  const auto part = [&](const Tensor& t) {
    return t.narrow(-1, first, count).contiguous().to(torch::kCPU);
  };
  CheckResults results{{}, part(r.checkpoints)};
  for (size_t i = 0; i < r.of.size(); ++i) results.of[i] = part(r.of[i]);
  return {{part(p.u), part(p.w), part(p.h0), part(p.dy), part(p.dhT)}, results};
}

}  // namespace

std::string what_is_wrong(const CheckCase& c, const CheckProblem& problem,
                          const CheckResults& results, const ScanStatistics& forward,
                          const ScanStatistics& backward, int64_t channels) {
  const int64_t count = std::min(c.channels, channels);
  // Taken here: another thread has another current stream, which would not wait for the results.
  const auto first = narrow(problem, results, 0, count);
  const auto last = narrow(problem, results, c.channels - count, count);
  const auto judged = [&](const std::pair<CheckProblem, CheckResults>& part) {
    return judge(c, part.first, part.second, forward, backward);
  };
  auto at_the_end = std::async(std::launch::async, judged, std::cref(last));
  const double worst = std::max(judged(first).worst(), at_the_end.get().worst());
  if (worst <= 1) return "";
  return fmt::format(
      "{} at B{} T{} D{}, weights ±{:g}, gate bias {:g}: the result is off by {:.3g} times what is "
      "permitted; see pararnn check",
      c.cell, c.batch, c.steps, c.channels, c.weight_scale, c.gate_bias, worst);
}

}  // namespace pararnn::cli
