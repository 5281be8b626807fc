#include "bench/first_use.hpp"

#include <fmt/format.h>
#include <torch/autograd.h>
#include <torch/cuda.h>
#include <torch/utils.h>

#include <chrono>

#include "cells/cell_registry.hpp"
#include "jit/disk_cache.hpp"
#include "ops/scan/scan.hpp"

namespace pararnn::bench {
namespace {

using nlohmann::json;
using torch::Tensor;
using Clock = std::chrono::steady_clock;

const Clock::time_point kBegin = Clock::now();

}  // namespace

json measure_first_use(const std::string& cell_name, const std::string& dtype,
                       const std::string& device, const ScanOptions& options) {
  const auto seconds_from = [](Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const double reading = seconds_from(kBegin);
  const bool on_gpu = device == "cuda";
  const BenchShape shape = on_gpu ? BenchShape{8, 2048, 2048} : BenchShape{1, 512, 64};
  const auto [B, T, D] = shape;
  const CellDefinition& cell = find_cell(cell_name);
  const auto like = torch::dtype(dtype_of(dtype)).device(device);
  const Tensor u = torch::randn({B, T, cell.inputs, D}, like).requires_grad_();
  const Tensor w = (torch::rand({cell.params, D}, torch::device(device)) - 0.5).requires_grad_();
  const Tensor dy = torch::randn({B, T, D}, like);
  torch::autograd::grad({u * 1}, {u}, {torch::ones_like(u)});
  const auto wait = [&] {
    if (on_gpu) torch::cuda::synchronize();
  };
  const auto run = [&] {
    const auto start = Clock::now();
    const auto [y, hT] = scan(u, w, std::nullopt, cell_name, options);
    torch::autograd::grad({y}, {u, w}, {dy});
    wait();
    return seconds_from(start);
  };
  wait();
  const double first = run(), again = run();
  return {
      {"cell", cell.name},    {"dtype", dtype},        {"batch", B},
      {"steps", T},           {"channels", D},         {"from_the_cache", jit::entries_made() == 0},
      {"reading_s", reading}, {"first_pass_s", first}, {"first_use_s", reading + first},
      {"again_s", again}};
}

std::string first_use_table_header() {
  return "| cell | dtype | the disk cache | reading the cell, s | first forward and backward, s | "
         "together, s | again, s |\n|---|---|---|--:|--:|--:|--:|\n";
}

std::string first_use_table_row(const json& m) {
  return fmt::format("| {} | {} | {} | {:.3f} | {:.3f} | {:.3f} | {:.4f} |\n",
                     m.at("cell").get<std::string>(), m.at("dtype").get<std::string>(),
                     m.at("from_the_cache").get<bool>() ? "has it" : "lacks it",
                     m.at("reading_s").get<double>(), m.at("first_pass_s").get<double>(),
                     m.at("first_use_s").get<double>(), m.at("again_s").get<double>());
}

}  // namespace pararnn::bench
