#include "nn/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "base/output_file.hpp"

namespace pararnn::nn {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little,
              "values are written as they lie in memory");

struct Dtype {
  const char* name;
  torch::ScalarType type;
};
constexpr std::array kDtypes{Dtype{"F64", torch::kDouble}, Dtype{"F32", torch::kFloat},
                             Dtype{"F16", torch::kHalf},   Dtype{"BF16", torch::kBFloat16},
                             Dtype{"I64", torch::kLong},   Dtype{"I32", torch::kInt},
                             Dtype{"I16", torch::kShort},  Dtype{"I8", torch::kChar},
                             Dtype{"U8", torch::kByte},    Dtype{"BOOL", torch::kBool}};

// Longer headers are refused, as by other readers of the format.
constexpr uint64_t kLongestHeader = 100'000'000;
constexpr const char* kMetadata = "__metadata__";

// Where one tensor lies in the data, as the header says.
struct Place {
  std::string name;
  torch::ScalarType type;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;
};

// A whole number from 0 to 2^63 - 1.
std::optional<uint64_t> size_of(const json& value) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > INT64_MAX) return std::nullopt;
  return value.get<uint64_t>();
}

// Reads one entry of the header. Throws Error with what is wrong, to be completed by the file's
// name.
Place parse_place(const std::string& name, const json& entry) {
  require(entry.is_object() && entry.size() == 3 && entry.contains("dtype") &&
              entry.contains("shape") && entry.contains("data_offsets"),
          "tensor '{}' must have dtype, shape and data_offsets and nothing else", name);
  Place place;
  place.name = name;
  const json &dtype = entry["dtype"], &shape = entry["shape"], &offsets = entry["data_offsets"];
  const auto known = std::find_if(kDtypes.begin(), kDtypes.end(),
                                  [&](const Dtype& candidate) { return dtype == candidate.name; });
  require(known != kDtypes.end(), "tensor '{}' is of the unknown dtype {}", name, dtype.dump());
  place.type = known->type;

  require(shape.is_array(), "the shape of tensor '{}' must be a list, not {}", name, shape.dump());
  uint64_t bytes = torch::elementSize(place.type);
  for (const json& size : shape) {
    const auto extent = size_of(size);
    require(extent.has_value(), "the shape of tensor '{}' holds {}, which is no size", name,
            size.dump());
    require(!__builtin_mul_overflow(bytes, *extent, &bytes) && bytes <= INT64_MAX,
            "the shape of tensor '{}' is too large", name);
    place.shape.push_back(static_cast<int64_t>(*extent));
  }

  require(offsets.is_array() && offsets.size() == 2 && size_of(offsets[0]) && size_of(offsets[1]),
          "the data_offsets of tensor '{}' must be two positions, not {}", name, offsets.dump());
  place.begin = *size_of(offsets[0]);
  place.end = *size_of(offsets[1]);
  require(place.begin <= place.end && place.end - place.begin == bytes,
          "tensor '{}' needs {} bytes, but its data_offsets are {}", name, bytes, offsets.dump());
  return place;
}

// The header's entries in the order of their data, which must be without gaps and overlaps from 0
// to `data_bytes`.
std::vector<Place> parse_places(const json& header, uint64_t data_bytes) {
  require(header.is_object(), "its header is no JSON object");
  std::vector<Place> places;
  for (const auto& [name, entry] : header.items()) {
    if (name != kMetadata) places.push_back(parse_place(name, entry));
  }
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t position = 0;
  for (const Place& place : places) {
    require(place.begin == position, "the data of tensor '{}' {} what is before it", place.name,
            place.begin < position ? "overlaps with" : "leaves a gap after");
    position = place.end;
  }
  require(position == data_bytes, "its tensors take {} bytes, but {} are there", position,
          data_bytes);
  return places;
}

std::map<std::string, std::string> parse_metadata(const json& header) {
  std::map<std::string, std::string> metadata;
  if (!header.contains(kMetadata)) return metadata;
  require(header[kMetadata].is_object(), "its metadata is no JSON object");
  for (const auto& [name, value] : header[kMetadata].items()) {
    require(value.is_string(), "its metadata '{}' is no string", name);
    metadata[name] = value.get<std::string>();
  }
  return metadata;
}

void read_bytes(std::ifstream& file, void* bytes, uint64_t count) {
  file.read(static_cast<char*>(bytes), static_cast<std::streamsize>(count));
  require(static_cast<uint64_t>(file.gcount()) == count, "reading it failed: {}",
          std::strerror(errno));
}

Safetensors read(std::ifstream& file, uint64_t file_bytes) {
  uint64_t header_bytes = 0;
  require(file_bytes >= sizeof header_bytes, "it has {} bytes, too few for a header", file_bytes);
  read_bytes(file, &header_bytes, sizeof header_bytes);
  require(header_bytes <= kLongestHeader && header_bytes <= file_bytes - sizeof header_bytes,
          "its header should have {} bytes, the file has {}", header_bytes, file_bytes);
  std::string text(header_bytes, '\0');
  read_bytes(file, text.data(), header_bytes);
  const json header = json::parse(text, nullptr, /*allow_exceptions=*/false);
  require(!header.is_discarded(), "its header is no valid JSON");

  Safetensors contents;
  const auto places = parse_places(header, file_bytes - sizeof header_bytes - header_bytes);
  contents.metadata = parse_metadata(header);
  for (const Place& place : places) {
    // A byte of a corrupted file need not be a valid bool: read as a number, then compare with
    // zero.
    const bool is_bool = place.type == torch::kBool;
    const torch::Tensor tensor = torch::empty(place.shape, is_bool ? torch::kByte : place.type);
    read_bytes(file, tensor.data_ptr(), place.end - place.begin);
    contents.tensors[place.name] = is_bool ? tensor.ne(0) : tensor;
  }
  return contents;
}

}  // namespace

void save_safetensors(const std::filesystem::path& path, const Safetensors& contents) {
  json header = json::object();
  if (!contents.metadata.empty()) header[kMetadata] = contents.metadata;
  // The widest dtypes first, so that every value lies at a multiple of its size.
  std::vector<std::pair<std::string, torch::Tensor>> ordered;
  for (const auto& [name, tensor] : contents.tensors) {
    require(name != kMetadata, "'{}': no tensor may be named {}", path.string(), kMetadata);
    ordered.emplace_back(name, tensor.detach().cpu().contiguous());
  }
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return a.second.element_size() > b.second.element_size();
  });

  std::vector<std::span<const std::byte>> pieces(2);
  uint64_t position = 0;
  for (const auto& [name, tensor] : ordered) {
    const torch::ScalarType type = tensor.scalar_type();
    const auto known = std::find_if(kDtypes.begin(), kDtypes.end(),
                                    [&](const Dtype& candidate) { return candidate.type == type; });
    require(known != kDtypes.end(), "'{}': tensor '{}' is of dtype {}, which is not written",
            path.string(), name, torch::toString(type));
    const uint64_t bytes = tensor.nbytes();
    header[name] = {{"dtype", known->name},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {position, position + bytes}}};
    pieces.emplace_back(static_cast<const std::byte*>(tensor.data_ptr()), bytes);
    position += bytes;
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t header_bytes = text.size();
  pieces[0] = std::as_bytes(std::span(&header_bytes, 1));
  pieces[1] = std::as_bytes(std::span(text));
  OutputFile file(path);
  for (const auto& piece : pieces) {
    file.write({reinterpret_cast<const char*>(piece.data()), piece.size()});
  }
  file.close();
}

Safetensors load_safetensors(const std::filesystem::path& path) {
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(path, error);
  require(!error, "cannot read '{}': {}", path.string(), error.message());
  std::ifstream file(path, std::ios::binary);
  require(file.is_open(), "cannot read '{}': {}", path.string(), std::strerror(errno));
  try {
    return read(file, bytes);
  } catch (const Error& reason) {
    throw Error(
        fmt::format("'{}' is no intact safetensors file: {}", path.string(), reason.what()));
  }
}

}  // namespace pararnn::nn
