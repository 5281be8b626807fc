// A map that forgets what was not used for longest.
#pragma once

#include <cstddef>
#include <list>
#include <map>
#include <utility>

namespace pararnn {

/// Values of the `capacity` keys that were asked for most recently. Not for several threads at
/// once.
template <class Key, class Value>
class LruMap {
 public:
  explicit LruMap(std::size_t capacity) : capacity_(capacity) {}

  /// The key's value, or else make(), which is kept from now on. Good until the next call.
  template <class Make>
  Value& find_or_make(const Key& key, Make&& make) {
    if (const auto found = places_.find(key); found != places_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return entries_.front().second;
    }
    entries_.emplace_front(key, make());
    places_.emplace(key, entries_.begin());
    if (entries_.size() > capacity_) {
      places_.erase(entries_.back().first);
      entries_.pop_back();
    }
    return entries_.front().second;
  }

  std::size_t size() const { return entries_.size(); }

 private:
  std::size_t capacity_;
  std::list<std::pair<Key, Value>> entries_;  // the latest first
  std::map<Key, typename std::list<std::pair<Key, Value>>::iterator> places_;
};

}  // namespace pararnn
