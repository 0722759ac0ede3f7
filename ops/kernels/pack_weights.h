// Matrices of weights of any type, packed for the product loop of this instruction set.
#pragma once

#include "numbers.h"
#include "packed.h"

namespace sbnet::SBNET_ISA {
namespace {

// Weights are as their sums, or whole numbers of 7 bits for levels.
template <typename N>
void pack_weights(const void* weights, int terms, int outputs, int depth, void* packed) {
  using Element = typename N::Element;
  using Weight = std::conditional_t<kOfLevels<N>, int8_t, typename N::Sum>;
  for (int64_t t = 0; t < terms; ++t)
    pack(static_cast<const Weight*>(weights) + t * outputs * depth, outputs, depth,
         static_cast<Element*>(packed) + t * Panels<Element>::size(outputs, depth), [](Weight value) {
           Element element;
           if constexpr (kOfLevels<N>)
             element = static_cast<Element>(value);
           else
             write(value, &element);
           return element;
         });
}

constexpr PackKernel kPackKernel = {
    [](Type type, int terms, int outputs, int depth) {
      return with_type(type, [&]<typename T>(T) {
        using Element = typename Numbers<T>::Element;
        return terms * Panels<Element>::size(outputs, depth) * static_cast<int64_t>(sizeof(Element));
      });
    },
    [](Type type, const void* weights, int terms, int outputs, int depth, void* packed) {
      with_type(type, [&]<typename T>(T) { pack_weights<Numbers<T>>(weights, terms, outputs, depth, packed); });
    },
    [](Type type, int terms, int outputs, int depth, const void* packed) {
      return with_type(type, [&]<typename T>(T) {
        using Element = typename Numbers<T>::Element;
        for (int64_t t = 0; t < terms; ++t)
          if (!valid(static_cast<const Element*>(packed) + t * Panels<Element>::size(outputs, depth), outputs, depth))
            return false;
        return true;
      });
    },
};

}  // namespace
}  // namespace sbnet::SBNET_ISA
