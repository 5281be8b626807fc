#include "jit/cubin.hpp"

#include <elf.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/error.hpp"

namespace pararnn::jit {
namespace {

std::string_view piece(std::string_view bytes, size_t at, size_t size) {
  require(at <= bytes.size() && size <= bytes.size() - at, "a cubin is cut short");
  return bytes.substr(at, size);
}

template <class T>
T read(std::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, piece(bytes, at, sizeof value).data(), sizeof value);
  return value;
}

// The content of the section of that name; empty if there is none.
std::string_view find_section(std::string_view cubin, std::string_view name) {
  const auto head = read<Elf64_Ehdr>(cubin, 0);
  const auto section = [&](size_t i) {
    return read<Elf64_Shdr>(cubin, head.e_shoff + i * sizeof(Elf64_Shdr));
  };
  const auto content = [&](const Elf64_Shdr& of) {
    return piece(cubin, of.sh_offset, of.sh_type == SHT_NOBITS ? 0 : of.sh_size);
  };
  const std::string_view names = content(section(head.e_shstrndx));
  for (size_t i = 0; i < head.e_shnum; ++i) {
    const Elf64_Shdr candidate = section(i);
    const std::string_view rest = names.substr(std::min<size_t>(candidate.sh_name, names.size()));
    if (rest.substr(0, rest.find('\0')) == name) return content(candidate);
  }
  return {};
}

}  // namespace

std::vector<size_t> parameter_bytes(std::string_view cubin, std::string_view symbol) {
  // A row of properties: how the value is kept, which property it is, and the value or its length.
  constexpr uint8_t kBehind = 4;                                // the value follows
  constexpr uint8_t kParameter = 0x17, kParameterLarge = 0x45;  // the latter above 4 KB in all
  const std::string_view info = find_section(cubin, fmt::format(".nv.info.{}", symbol));
  std::vector<std::pair<uint16_t, size_t>> parameters;  // ordinal, bytes
  for (size_t at = 0; at < info.size();) {
    const auto form = read<uint8_t>(info, at), property = read<uint8_t>(info, at + 1);
    const auto length = read<uint16_t>(info, at + 2);
    at += 4;
    if (form != kBehind) continue;
    const std::string_view value = piece(info, at, length);
    at += length;
    if (property != kParameter && property != kParameterLarge) continue;
    // index, ordinal, offset, and a word that holds the size among other things
    const auto word = read<uint32_t>(value, 8);
    parameters.emplace_back(read<uint16_t>(value, 4),
                            property == kParameter ? word >> 18 : word & 0xffffff);
  }
  std::sort(parameters.begin(), parameters.end());
  std::vector<size_t> bytes;
  for (const auto& parameter : parameters) bytes.push_back(parameter.second);
  return bytes;
}

}  // namespace pararnn::jit
