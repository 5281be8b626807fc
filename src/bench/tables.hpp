// The tables of `pararnn bench`, in Markdown: a header and a line for each measurement, so that
// they can be printed as it goes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace pararnn::bench {

/// The machine, the dtype and the copy rate.
std::string machine_line(const nlohmann::json& report);

std::string cpu_table_header();
std::string cpu_table_row(const nlohmann::json& result);

/// Time on a GPU, without the host, of the engine's passes.
std::string gpu_table_header();
std::string gpu_table_row(const nlohmann::json& result);

/// The operator with autograd, beside the loop of ops, launched by the host.
std::string module_table_header();
std::string module_table_row(const nlohmann::json& report, const nlohmann::json& result);

std::string decode_table_header();
std::string decode_table_row(const nlohmann::json& result);

/// Other mixers; the engine at the same shape is the first that is forgetting.
std::string baseline_table_header();
std::string baseline_table_row(const nlohmann::json& report, const nlohmann::json& baseline);

}  // namespace pararnn::bench
