// Whether a result is right, judged before it is timed.
#pragma once

#include <string>

#include "verdict/check_case.hpp"

namespace pararnn::cli {

/// What `pararnn check` says of the first and the last `channels` channels of a result in the
/// arithmetic's dtype; nothing if they are right, otherwise a sentence. Only these channels are
/// copied to the host.
std::string what_is_wrong(const CheckCase& check, const CheckProblem& problem,
                          const CheckResults& results, const ScanStatistics& forward,
                          const ScanStatistics& backward, int64_t channels);

}  // namespace pararnn::cli
