#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>

#include "verdict/check_case.hpp"
#include "verdict/sections.hpp"

namespace pararnn {
namespace {

using json = nlohmann::json;

/// What is timed: all steps in order, so that the time is that of the step and not of a plan, on
/// columns enough to fill the machine.
CheckCase timed_case(const std::string& cell, const torch::Device& device) {
  CheckCase result;
  result.cell = cell;
  result.device = device;
  result.options.plan = "sequential";
  result.batch = 8;
  result.steps = device.is_cuda() ? 1024 : 512;
  result.channels = device.is_cuda() ? 2048 : 256;
  result.dtype = device.is_cuda() ? "bfloat16" : "float32";
  return result;
}

struct Times {
  std::vector<double> forward, backward;  // seconds a pass
};

void wait_for(const torch::Device& device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.index());
}

/// A forward and a backward pass, several times where one is short.
void time_once(const CheckCase& c, const CheckProblem& problem, Times& times) {
  const auto leaf = [](const torch::Tensor& t) { return t.detach().requires_grad_(); };
  const torch::Tensor u = leaf(problem.u), w = leaf(problem.w), h0 = leaf(problem.h0);
  const int passes = c.device.is_cuda() ? 10 : 1;
  const auto now = [&] {
    wait_for(c.device);
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  std::vector<std::tuple<torch::Tensor, torch::Tensor>> results;
  const double start = now();
  for (int i = 0; i < passes; ++i) results.push_back(scan(u, w, h0, c.cell, c.options));
  const double between = now();
  for (const auto& [y, hT] : results) {
    torch::autograd::grad({y, hT}, {u, w, h0}, {problem.dy, problem.dhT});
  }
  times.forward.push_back((between - start) / passes);
  times.backward.push_back((now() - between) / passes);
}

json cost_on(const torch::Device& device, const CellContract& cell) {
  constexpr int kRepeats = 11;
  const CheckCase own = timed_case(cell.definition.key(), device), gru = timed_case("gru", device);
  const CheckProblem own_problem = random_problem(own), gru_problem = random_problem(gru);
  Times own_times, gru_times, discarded;
  time_once(own, own_problem, discarded);
  time_once(gru, gru_problem, discarded);
  // In turns, so that what else the machine does hits both alike.
  for (int i = 0; i < kRepeats; ++i) {
    time_once(own, own_problem, own_times);
    time_once(gru, gru_problem, gru_times);
  }
  const double columns = double(own.batch * own.channels * own.steps);
  const auto pass = [&](const std::vector<double>& of_own, const std::vector<double>& of_gru) {
    // The fastest: what else the machine does only ever adds.
    const double seconds = std::ranges::min(of_own), of_the_gru = std::ranges::min(of_gru);
    return json{{"microseconds", 1e6 * seconds},
                {"gru_microseconds", 1e6 * of_the_gru},
                {"nanoseconds_a_step_and_channel", 1e9 * seconds / columns},
                {"of_gru", seconds / of_the_gru}};
  };
  return {{"device", device.str()},
          {"dtype", own.dtype},
          {"batch", own.batch},
          {"steps", own.steps},
          {"channels", own.channels},
          {"forward", pass(own_times.forward, gru_times.forward)},
          {"backward", pass(own_times.backward, gru_times.backward)}};
}

}  // namespace

json cost_section(const CellContract& cell, const VerdictOptions& options) {
  json devices = json::array();
  for (const torch::Device& device : options.devices) devices.push_back(cost_on(device, cell));
  return {{"devices", devices}};
}

}  // namespace pararnn
