#include "nn/layer_pattern.hpp"

#include <algorithm>
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
            "N layers: rnn, or rnn*3,attention",
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

int64_t layers_among(const std::vector<LayerRun>& runs, std::string_view mixer, int64_t count) {
  const int64_t length = length_of(runs);
  int64_t in_pattern = 0, in_rest = 0, rest = count % length;
  for (const LayerRun& run : runs) {
    if (run.mixer == mixer) {
      in_pattern += run.layers;
      in_rest += std::min(rest, run.layers);
    }
    rest -= std::min(rest, run.layers);
  }
  return count / length * in_pattern + in_rest;
}

int64_t layer_of(const std::vector<LayerRun>& runs, std::string_view mixer, int64_t number) {
  const int64_t length = length_of(runs), in_pattern = layers_among(runs, mixer, length);
  int64_t layer = number / in_pattern * length, left = number % in_pattern;
  for (const LayerRun& run : runs) {
    if (run.mixer == mixer && left < run.layers) return layer + left;
    if (run.mixer == mixer) left -= run.layers;
    layer += run.layers;
  }
  throw Error(fmt::format("no layer is of the mixer '{}'", mixer));
}

}  // namespace pararnn::nn
