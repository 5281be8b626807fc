#include "bench/sequences.hpp"

#include <fmt/format.h>
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/utils.h>

#include <algorithm>
#include <optional>
#include <random>

#include "base/error.hpp"
#include "bench/gpu_timer.hpp"
#include "bench/host_timer.hpp"
#include "bench/report.hpp"
#include "cells/cell_registry.hpp"
#include "ops/scan/scan.hpp"
#include "train/memory.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;
using torch::Tensor;

/// Of the sequences in a row; 0 is one sequence.
constexpr int64_t kMeanLengths[] = {0, 4096, 1024, 256, 30};

/// Lengths uniform from 1 to twice the mean.
Tensor random_offsets(int64_t steps, int64_t mean) {
  std::mt19937_64 generator(1);
  std::vector<int> offsets = {0};
  while (offsets.back() < steps) {
    const int64_t length = mean == 0 ? steps : 1 + int64_t(generator() % uint64_t(2 * mean - 1));
    offsets.push_back(int(std::min(steps, offsets.back() + length)));
  }
  return torch::tensor(offsets, torch::kInt);
}

/// The first, a middle and the last sequence against scans of their own.
void require_right(const Tensor& y, const Tensor& u, const Tensor& w, const Tensor& cu_seqlens,
                   const std::string& cell) {
  const torch::NoGradGuard no_grad;
  const int64_t count = cu_seqlens.size(0) - 1;
  const double tolerance = u.element_size() == 2 ? 1.0 / 64 : u.element_size() == 4 ? 1e-4 : 1e-9;
  for (const int64_t n : {int64_t{0}, count / 2, count - 1}) {
    const auto begin = cu_seqlens[n].item<int64_t>(), end = cu_seqlens[n + 1].item<int64_t>();
    const auto [alone, hT] =
        scan(u.slice(1, begin, end), w, std::nullopt, cell, {.plan = "sequential"});
    require(torch::allclose(y.slice(1, begin, end), alone, tolerance, tolerance),
            "sequence {} of {} packed ones is not what it is alone, for the cell {}", n, count,
            cell);
  }
}

struct Times {
  double forward, both;  // microseconds
};

Times time_row(const std::string& cell, const Tensor& u, const Tensor& w, const Tensor& dy,
               const std::optional<Tensor>& cu_seqlens, const ScanOptions& options,
               const std::optional<GpuTimer>& gpu) {
  const ScanSequences sequences{cu_seqlens, std::nullopt};
  const auto forward = [&] {
    const torch::NoGradGuard no_grad;
    scan(u, w, std::nullopt, cell, options, sequences);
  };
  const auto both = [&] {
    const auto [y, hT] = scan(u, w, std::nullopt, cell, options, sequences);
    torch::autograd::grad({y}, {u, w}, {dy});
  };
  const auto time = [&](const std::function<void()>& run) {
    if (!gpu) return 1e3 * median_milliseconds(run, 7, 0.6);
    settle(run, options);
    return gpu->microseconds(run);
  };
  return {time(forward), time(both)};
}

}  // namespace

json measure_sequences(const BenchOptions& options, const std::string& device) {
  std::optional<GpuTimer> gpu;
  if (device == "cuda") gpu.emplace();
  json measurements = json::array();
  print(sequences_table_header());
  for (const std::string& name : options.cells) {
    const CellDefinition& cell = find_cell(name);
    for (const auto& [batch, steps, channels] : options.shapes) {
      require(batch == 1, "--part sequences packs one row, so the shape {}x{}x{} should be 1x{}x{}",
              batch, steps, channels, batch * steps, channels);
      torch::manual_seed(1);
      const torch::ScalarType type = dtype_of(options.dtype);
      train::require_memory(
          train::scan_memory(name, batch, steps, channels, double(c10::elementSize(type))),
          torch::Device(device));
      const auto like = torch::dtype(type).device(device);
      const Tensor u = torch::randn({1, steps, cell.inputs, channels}, like).requires_grad_();
      const Tensor w =
          (torch::rand({cell.params, channels}, torch::device(device)) - 0.5).requires_grad_();
      const Tensor dy = torch::randn({1, steps, channels}, like);
      std::optional<Times> one;
      for (const int64_t mean : kMeanLengths) {
        std::optional<Tensor> cu_seqlens;
        if (mean > 0) {
          cu_seqlens = random_offsets(steps, mean).to(device);
          const torch::NoGradGuard no_grad;
          const Tensor y = std::get<0>(
              scan(u, w, std::nullopt, cell.key(), options.scan, {cu_seqlens, std::nullopt}));
          require_right(y, u, w, cu_seqlens->cpu(), cell.key());
        }
        const Times times = time_row(cell.key(), u, w, dy, cu_seqlens, options.scan, gpu);
        if (!one) one = times;
        measurements.push_back({{"cell", cell.name},
                                {"dtype", options.dtype},
                                {"batch", batch},
                                {"steps", steps},
                                {"channels", channels},
                                {"mean_length", mean},
                                {"sequences", cu_seqlens ? cu_seqlens->size(0) - 1 : 1},
                                {"forward_us", times.forward},
                                {"both_us", times.both},
                                {"forward_of_one", times.forward / one->forward},
                                {"both_of_one", times.both / one->both}});
        print(sequences_table_row(measurements.back()));
      }
    }
  }
  return measurements;
}

std::string sequences_table_header() {
  return "| cell | dtype | T | D | sequences | mean length | forward, µs | of one sequence | "
         "forward and backward, µs | of one sequence "
         "|\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n";
}

std::string sequences_table_row(const json& m) {
  const auto mean = m.at("mean_length").get<int64_t>();
  return fmt::format("| {} | {} | {} | {} | {} | {} | {:.0f} | {:.2f}x | {:.0f} | {:.2f}x |\n",
                     m.at("cell").get<std::string>(), m.at("dtype").get<std::string>(),
                     m.at("steps").get<int64_t>(), m.at("channels").get<int64_t>(),
                     m.at("sequences").get<int64_t>(), mean == 0 ? "" : std::to_string(mean),
                     m.at("forward_us").get<double>(), m.at("forward_of_one").get<double>(),
                     m.at("both_us").get<double>(), m.at("both_of_one").get<double>());
}

}  // namespace pararnn::bench
