#include "train/run_log.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

#include "base/error.hpp"

namespace pararnn::train {

RunLog::RunLog(std::filesystem::path path, int64_t bytes) : path_(std::move(path)) {
  descriptor_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  struct stat status {};
  const bool opened = descriptor_ >= 0 && fstat(descriptor_, &status) == 0;
  bytes_ = std::min<int64_t>(bytes, status.st_size);
  // Without an own copy of the reason, closing could change it.
  const int reason = opened && ftruncate(descriptor_, bytes_) == 0 ? 0 : errno;
  if (reason == 0) return;
  if (descriptor_ >= 0) close(descriptor_);
  throw Error(fmt::format("cannot write {}: {}", path_.string(), std::strerror(reason)));
}

RunLog::~RunLog() { close(descriptor_); }

void RunLog::write(const nlohmann::json& event) {
  const std::string line = event.dump() + "\n";
  const ssize_t written = ::write(descriptor_, line.data(), line.size());
  require(written == static_cast<ssize_t>(line.size()), "cannot write {}: {}", path_.string(),
          std::strerror(written < 0 ? errno : ENOSPC));
  bytes_ += written;
}

std::vector<nlohmann::json> read_run_log(const std::filesystem::path& path) {
  std::ifstream file(path);
  require(file.good(), "cannot read {}: {}", path.string(), std::strerror(errno));
  std::vector<nlohmann::json> events;
  std::string line;
  while (std::getline(file, line)) {
    if (file.eof()) break;  // without the end of a line
    nlohmann::json event = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    require(event.is_object() && event.contains("event"), "{}, line {}: this is no event of a run",
            path.string(), events.size() + 1);
    events.push_back(std::move(event));
  }
  return events;
}

}  // namespace pararnn::train
