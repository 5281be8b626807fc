// Reports of `pararnn bench`: JSON files, merged, and the documents made of them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pararnn::bench {

/// Writes to standard output at once.
void print(const std::string& text);

/// Throws Error if the file cannot be written.
void write_report(const std::string& path, const nlohmann::json& report);

/// Reads reports of one machine and puts them together; of a measurement that several have, the
/// last counts. Throws Error if one cannot be read, is no report, or is of another machine.
nlohmann::json read_reports(const std::vector<std::string>& paths);

/// The document of a report: what was measured where, its tables, and the plot unless there is
/// none. The paths are where document and plot go.
std::string markdown_of(const nlohmann::json& report, const std::string& path,
                        const std::string& plot);

/// Time against steps, forward and backward, of the engine and the baselines: for the cell, batch,
/// channels and dtype that were measured at the most lengths. Throws Error if the report has no
/// results on a GPU.
std::string time_against_steps_svg(const nlohmann::json& report);

}  // namespace pararnn::bench
