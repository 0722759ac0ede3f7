// Which numbers a layer computes with.
#pragma once

#include <type_traits>

#include "../kernels.h"
#include "elements.h"

namespace sbnet::SBNET_ISA {
namespace {

// The numbers of a layer: what its maps x and y hold, what is multiplied, and what its sums are scaled in.
template <typename Storage>
struct Numbers {
  using X = Storage;
  using Y = Storage;
  using Element = typename ElementOf<Storage>::type;
  using Sum = typename Multiply<Element>::Sum;
  using Scale = Sum;
};
template <typename InX, typename InY>
struct Levels {
  using X = InX;
  using Y = InY;
  using Element = uint8_t;
  using Sum = int32_t;
  using Scale = float;
};
template <>
struct Numbers<uint8_t> : Levels<uint8_t, uint8_t> {};
template <typename N>
constexpr bool kOfLevels = std::is_same_v<typename N::Element, uint8_t>;

// Calls body(a number of the type).
template <typename Body>
auto with_type(Type type, Body body) {
  switch (type) {
    case Type::kDouble: return body(double{});
    case Type::kHalf: return body(Half{});
    case Type::kBFloat16: return body(BFloat16{});
    case Type::kLevels: return body(uint8_t{});
    default: return body(float{});
  }
}

}  // namespace
}  // namespace sbnet::SBNET_ISA
