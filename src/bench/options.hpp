// What `pararnn bench` is asked to measure, and the regimes that it knows.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/problem.hpp"

namespace pararnn::bench {

struct BenchShape {
  int64_t batch, steps, channels;
};

/// Random recurrent weights and the bias of a gate: how long the cell remembers, and how hard the
/// recurrence is to predict.
struct Regime {
  const char* name;
  double weight_scale, gate_bias;
};
inline constexpr Regime kRegimes[] = {{"forgetting", 1, 0}, {"memory", 1, -4}, {"hard", 4, -4}};

struct BenchOptions {
  std::vector<std::string> cells, regimes, parts;
  std::vector<std::string> mixers;  // of the models that generate
  std::vector<int64_t> contexts;    // tokens that they have read before
  std::vector<BenchShape> shapes;
  std::string dtype;
  ScanOptions scan;
  bool baselines = true;
  std::string json_file;  // written after each measurement, unless empty
};

/// The random problem of one measurement. Throws Error for a regime that does not exist.
CheckCase case_of(const std::string& cell, const BenchShape& shape, const std::string& regime,
                  const std::string& dtype, const std::string& device,
                  const ScanOptions& scan = {});

/// What a report says of the problem that it measured.
nlohmann::json describe_case(const CheckCase& problem, const std::string& regime);

}  // namespace pararnn::bench
