#include "ops/scan.hpp"

#include "base/error.hpp"
#include "pararnn/cells.hpp"

namespace pararnn {

std::tuple<torch::Tensor, torch::Tensor> step(const torch::Tensor& u, const torch::Tensor& w,
                                              const torch::Tensor& h, const std::string& cell) {
  require(cell == "gru", "only gru yet, not {}", cell);
  auto x = u.dim() == 4 ? u.transpose(1, 2).flatten(2) : u;
  auto s = h.select(1, 0);
  auto z = torch::sigmoid(x.select(1, 0) + w[0] * s);
  auto r = torch::sigmoid(x.select(1, 1) + w[1] * s);
  auto c = torch::tanh(x.select(1, 2) + w[2] * (r * s));
  auto next = s + z * (c - s);
  return {next, next.unsqueeze(1)};
}

std::tuple<torch::Tensor, torch::Tensor> scan(const torch::Tensor& u, const torch::Tensor& w,
                                              const std::optional<torch::Tensor>& h0,
                                              const std::string& cell, const ScanOptions&) {
  auto h = h0 ? *h0 : torch::zeros({u.size(0), 1, w.size(1)}, u.options());
  std::vector<torch::Tensor> ys;
  for (int64_t t = 0; t < u.size(1); ++t) {
    torch::Tensor y;
    std::tie(y, h) = step(u.select(1, t), w, h, cell);
    ys.push_back(y);
  }
  return {torch::stack(ys, 1), h};
}

std::pair<ScanStatistics, ScanStatistics> last_scan_statistics() { return {}; }

}  // namespace pararnn
