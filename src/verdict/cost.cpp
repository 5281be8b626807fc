#include <algorithm>
#include <chrono>

#include "cells/cell_registry.hpp"
#include "jit/cuda_runtime.hpp"
#include "kernels/scan.hpp"
#include "verdict/check_problem.hpp"
#include "verdict/sections.hpp"

namespace pararnn {
namespace {

using json = nlohmann::json;

/// What is timed: all steps in order, so that the time is that of the step and not of a plan, on
/// columns enough to fill the machine.
CheckCase timed_case(const std::string& cell, const std::string& device) {
  const bool on_gpu = device != "cpu";
  CheckCase result;
  result.cell = cell;
  result.device = device;
  result.options.plan = "sequential";
  result.batch = 8;
  result.steps = on_gpu ? 1024 : 512;
  result.channels = on_gpu ? 2048 : 256;
  result.dtype = on_gpu ? "bfloat16" : "float32";
  return result;
}

struct Times {
  std::vector<double> forward, backward;  // seconds a pass
};

/// Seconds at which all is done that was launched on the device before.
double time_on(const kernels::Tensor& t) {
  if (t.is_cuda()) {
    const torch::stable::accelerator::DeviceGuard on_its_device(t.get_device_index());
    jit::check_cuda(jit::cuda().cudaDeviceSynchronize(), "wait for a GPU");
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A forward and a backward pass, several times where one is short.
void time_once(const CheckCase& c, const CheckProblem& p, Times& times) {
  const CellDefinition& cell = find_cell(c.cell);
  const int passes = p.u.is_cuda() ? 10 : 1;
  std::vector<kernels::ForwardResults> results;
  const double start = time_on(p.u);
  for (int i = 0; i < passes; ++i) {
    results.push_back(
        kernels::scan_forward(p.u, p.w, p.h0, cell, c.options,
                              {.checkpoint_interval = kernels::checkpoint_interval_on(p.u)}));
  }
  const double between = time_on(p.u);
  for (const kernels::ForwardResults& forward : results) {
    kernels::scan_backward(p.u, p.w, *forward.checkpoints, p.dy, p.dhT, cell, c.options);
  }
  times.forward.push_back((between - start) / passes);
  times.backward.push_back((time_on(p.u) - between) / passes);
}

json cost_on(const std::string& device, const CellContract& cell) {
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
  return {{"device", device},
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
  for (const std::string& device : options.devices) devices.push_back(cost_on(device, cell));
  return {{"devices", devices}};
}

}  // namespace pararnn
