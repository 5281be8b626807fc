#include "nn/layer_pattern.hpp"

#include <charconv>

#include "nn/option.hpp"

namespace pararnn::nn {

std::vector<LayerRun> parse_layer_pattern(const std::string& pattern) {
  std::vector<LayerRun> runs;
  for (size_t begin = 0; begin <= pattern.size();) {
    const size_t end = std::min(pattern.find(',', begin), pattern.size());
    const std::string part = pattern.substr(begin, end - begin);
    const size_t star = part.find('*');
    LayerRun run{part.substr(0, star), 1};
    bool valid = !run.mixer.empty();
    if (star != part.npos) {
      const char* last = part.data() + part.size();
      const auto [rest, error] = std::from_chars(part.data() + star + 1, last, run.layers);
      valid = valid && error == std::errc() && rest == last && run.layers >= 1 &&
              run.layers <= kLargestSize;
    }
    require(valid,
            "mixer is '{}', but must be names with commas between them, each with *N behind it for "
            "N layers: rnn, or rnn*3,rnn",
            pattern);
    runs.push_back(run);
    begin = end + 1;
  }
  return runs;
}

int64_t length_of(const std::vector<LayerRun>& runs) {
  int64_t layers = 0;
  for (const LayerRun& run : runs) layers += run.layers;
  return layers;
}

}  // namespace pararnn::nn
