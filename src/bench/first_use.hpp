// How long a researcher waits for a cell: from the command to its first gradient.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "bench/options.hpp"

namespace pararnn::bench {

/// The first forward and backward pass of a cell in this process, of which nothing else may have
/// run before: reading and compiling the cell, and its kernels, or bringing them from the disk
/// cache. The start of LibTorch and of the device is not in it. Says whether the cache had it all.
nlohmann::json measure_first_use(const std::string& cell, const std::string& dtype,
                                 const std::string& device, const ScanOptions& options);

std::string first_use_table_header();
std::string first_use_table_row(const nlohmann::json& measurement);

}  // namespace pararnn::bench
